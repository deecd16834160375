"""A base with dropout in attention: outputs of attention are not kept, because later dropout would get another mask."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from ray_jobs.finetune.planning.shape import training_shape
from ray_jobs.finetune.training.kept_attention import keeps_attention_within
from ray_jobs.finetune.training.lora import check_targets
from tests.ray_jobs.finetune.training_example import make_params
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
