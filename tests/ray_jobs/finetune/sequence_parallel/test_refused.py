"""What cannot be cut is refused before any work, with a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import Lfm2Config, LlamaConfig, LlamaModel, MixtralConfig

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.finetune.proof import prove
from ray_jobs.finetune.proof.prove import refuse_unproven
from ray_jobs.finetune.training.lora import check_targets
from tasks.model.extended import rope_plan_for
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


def write_llama(folder: Path, **others: Any) -> str:
    LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, architectures=["LlamaForCausalLM"], **others,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def test_two_lists_of_longrope_are_cut_as_they_are_trained_with_one(tmp_path: Path) -> None:
    params = params_of(write_llama(tmp_path / "base"), 256, 2, 2)
    factors = tmp_path / "factors.json"
    factors.write_text(json.dumps({"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 3.0, 4.0]}))
    longrope = {"rope_method": "longrope", "rope_factors_file": str(factors)}
    params = params.model_copy(update={"model": params.model.model_copy(update=longrope)})
    assert rope_plan_for(params.model).has_short_rotation
    check_targets(params)


def test_experts_of_which_a_token_uses_nobody_knows_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, head_dim=8, num_local_experts=2, architectures=["MixtralForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    check_targets(params_of(str(tmp_path), 128, 2, 2))
    monkeypatch.setattr("ray_jobs.finetune.planning.flops._EXPERTS_A_TOKEN", ())
    check_targets(params_of(str(tmp_path), 128, 1, 1))
    with pytest.raises(
        UserError, match=r"config of mixtral does not say how many experts a token uses.*set ray.sequence_workers to 1"
    ):
        check_targets(params_of(str(tmp_path), 128, 2, 2))


def test_positions_that_do_not_reach_the_attention_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_llama(tmp_path)
    refuse_unproven(params_of(base, 128, 2, 2))
    own = LlamaModel.forward

    def with_positions_of_its_own(self: Any, *inputs: Any, **given: Any) -> Any:
        positions = given.get("position_ids")
        return own(self, *inputs, **given | {"position_ids": None if positions is None else positions.clone()})

    monkeypatch.setattr(LlamaModel, "forward", with_positions_of_its_own)
    monkeypatch.setattr(prove, "_proven", {})
    assert refuse_unproven(params_of(base, 128, 1, 1)).holds
    with pytest.raises(UserError, match=r"type 'llama' does not pass its positions on.*set ray.sequence_workers to 1"):
        refuse_unproven(params_of(base, 128, 2, 2))


def test_rows_that_came_out_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    shards: dict[str, Any] = {"shards": Rows([packed(40), packed(1, 1)]), "heldout": Rows([packed(9)])}
    monkeypatch.setattr("tasks.pack.reading.open_rows", lambda folder: shards[folder.name])
    checkpoint_stage._refuse_short_rows(params_of("demo", 64, 2, 2), Path("shards"))
    with pytest.raises(
        UserError, match=r"A row in shards has 2 tokens, so 4 workers cannot share it: lower ray.sequence_workers"
    ):
        checkpoint_stage._refuse_short_rows(params_of("demo", 64, 4, 4), Path("shards"))
