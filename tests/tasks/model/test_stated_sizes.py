"""Layers and heads by a config.json alone are those that transformers finds, or are left to it."""

import json

import pytest

from data_schemas.errors import UserError
from data_schemas.params import ModelParams
from ray_jobs.finetune.full_layers import num_kv_heads_of
from tasks.model.base_model import load_config
from tasks.model.stated_sizes import stated_sizes
from tests.tiny_models import tiny_config


def base_of(folder, **changes):
    return ModelParams(base=str(folder), target_length=128, **changes)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_they_are_what_transformers_finds(tmp_path, kind):
    tiny_config(kind, vocab=384).save_pretrained(tmp_path)
    config = load_config(base_of(tmp_path)).get_text_config()
    assert stated_sizes(base_of(tmp_path)) == (config.num_hidden_layers, num_kv_heads_of(config))


def test_the_demo_has_four_layers_of_two_heads():
    assert stated_sizes(ModelParams(base="demo", target_length=2048)) == (4, 2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"num_hidden_layers": 9, "text_config": {"num_hidden_layers": 3, "num_key_value_heads": 1}}', (3, 1)),
        ('{"num_hidden_layers": 3, "num_key_value_heads": null}', (3, None)),
        ('{"num_hidden_layers": 3, "num_key_value_heads": [1, 2, 4]}', (3, None)),
        ('{"n_layer": 3}', (None, None)),
        ('{"text_config": 3}', (None, None)),
        ("[]", (None, None)),
        ("{", (None, None)),
    ],
)
def test_what_the_file_leaves_open_is_left_to_transformers(tmp_path, text, found):
    (tmp_path / "config.json").write_text(text)
    assert stated_sizes(base_of(tmp_path)) == found


def test_a_base_without_a_readable_file_here(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 3}))
    assert stated_sizes(base_of(tmp_path, gguf_file="base.gguf")) == (None, None), "the GGUF file has its own sizes"
    assert stated_sizes(base_of("org/name")) == (None, None)
    with pytest.raises(UserError, match="There is no base model folder"):
        stated_sizes(base_of(tmp_path / "missing"))
