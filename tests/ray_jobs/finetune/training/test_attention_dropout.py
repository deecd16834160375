"""A base with dropout in attention: outputs of attention are not kept, because later dropout would get another mask.

Training alone drops anything.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_schemas.errors import UserError
from ray_jobs.finetune.planning.shape import training_shape
from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.kept_attention import keeps_attention_within
from ray_jobs.finetune.training.layer_probe import probe_layers
from ray_jobs.finetune.training.loop import set_up
from ray_jobs.finetune.training.lora import check_targets
from ray_jobs.finetune.training.steps import validate
from tests.ray_jobs.finetune.training_example import ALONE, CPU, ROWS, make_params, write_base
from tests.tiny_models import tiny_config


def test_outputs_are_not_kept_where_attention_has_dropout(tmp_path: Path) -> None:
    config = tiny_config("llama")
    config.max_position_embeddings, config.attention_dropout = 32, 0.1
    config.save_pretrained(tmp_path)
    auto = make_params(tmp_path, gradient_checkpointing=True)
    check_targets(auto)
    shape = training_shape(auto)
    assert not keeps_attention_within(auto, shape, 24e9)
    assert keeps_attention_within(auto, replace(shape, attention_dropout=False), 24e9)
    with pytest.raises(UserError, match=r"kept does not work with this base.*\(attention_dropout 0\.1\): set it to auto"):
        check_targets(make_params(tmp_path, gradient_checkpointing=True, attention_outputs="kept"))


@pytest.mark.parametrize("parts", ["layers", "heads"])
def test_nothing_is_dropped_where_sparse_attention_is_measured(tmp_path: Path, tokenizer: Any, parts: str) -> None:
    """The probe and the validation with groups find what they find of the same base without dropout, though it is in training."""
    measured = []
    for dropout in (0.0, 0.5):
        base = write_base(tmp_path / str(dropout), tokenizer, tied=True)
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"attention_dropout": dropout}))
        params = make_params(base, **{f"full_attention_{parts}": "auto"})
        objective, _ = set_up(params, ALONE)
        measured.append((probe_layers(objective, params, ROWS, ALONE), validate(objective, ROWS, params, ALONE)))
    assert measured[0] == measured[1]
    assert measured[0][1]["validation_loss"] != measured[0][1]["s2_validation_loss"]
    batch = read_micro_batch(ROWS, [0], CPU)
    assert objective(batch).item() != objective(batch).item(), "a training step drops"
