"""What cannot be cut is refused before any work, with a sentence."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import Lfm2Config

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.finetune.training.lora import check_targets
from tests.ray_jobs.finetune.training_example import Rows, packed


def params_of(base: str, row: int, workers: int, sharing: int) -> PipelineParams:
    return PipelineParams.model_validate(
        {
            "run_name": "cut",
            "corpus": {"sources": ["x"]},
            "model": {"base": base, "target_length": row, "rope_method": "yarn"},
            "training": {"rows_per_step": 4},
            "ray": {"num_workers": workers, "sequence_workers": sharing},
        }
    )


@pytest.mark.parametrize(
    ("row", "workers", "sharing", "sentence"),
    [
        (64, 3, 2, "ray.num_workers 3 is not a multiple of ray.sequence_workers 2: change one of them"),
        (64, 128, 128, "ray.sequence_workers 128 is more than the 64 tokens of a row: lower it"),
    ],
)
def test_numbers_that_do_not_fit(row: int, workers: int, sharing: int, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        params_of("demo", row, workers, sharing)


def test_a_base_that_carries_a_state(tmp_path: Path) -> None:
    Lfm2Config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, layer_types=["conv", "full_attention"], architectures=["Lfm2ForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    check_targets(params_of(str(tmp_path), 128, 1, 1))
    with pytest.raises(UserError, match=r"Rows of this base cannot be cut over workers, because its Lfm2\w+ carries a state"):
        check_targets(params_of(str(tmp_path), 128, 2, 2))


def test_rows_that_came_out_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    shards: dict[str, Any] = {"shards": Rows([packed(40), packed(1, 1)]), "heldout": Rows([packed(9)])}
    monkeypatch.setattr("tasks.pack.reading.open_rows", lambda folder: shards[folder.name])
    checkpoint_stage._refuse_short_rows(params_of("demo", 64, 2, 2), Path("shards"))
    with pytest.raises(
        UserError, match=r"A row in shards has 2 tokens, so 4 workers cannot share it: lower ray.sequence_workers"
    ):
        checkpoint_stage._refuse_short_rows(params_of("demo", 64, 4, 4), Path("shards"))
