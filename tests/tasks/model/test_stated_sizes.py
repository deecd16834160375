"""Layers and heads by a config.json alone are those that transformers finds, or are left to it."""

import json

import pytest

from data_schemas.errors import UserError
from data_schemas.params import ModelParams
from ray_jobs.finetune.full_layers import num_kv_heads_of
from tasks.model.base_model import load_config
from tasks.model.rope_config import read_base_rope
from tasks.model.stated_sizes import StatedRope, stated_rope, stated_sizes
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


def stated_and_found(folder, **changes):
    base = read_base_rope(load_config(base_of(folder)), base_of(folder, **changes).window)
    return stated_rope(base_of(folder, **changes)), StatedRope(base.window, base.rotary_dim // 2)


@pytest.mark.parametrize(
    "kind",
    ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "mixtral", "granite-scaled", "olmo2-norms-behind",
     "smollm3-layer-without-rope"],
)  # fmt: skip
def test_window_and_pairs_are_what_transformers_finds(tmp_path, kind):
    tiny_config(kind, vocab=384).save_pretrained(tmp_path)
    stated, found = stated_and_found(tmp_path)
    assert stated == found
    stated, found = stated_and_found(tmp_path, window=96)
    assert stated == found == StatedRope(96, found.num_pairs)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_pairs_without_a_stated_width_of_a_head_are_found_or_left_open(tmp_path, kind):
    tiny_config(kind, vocab=384).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("head_dim", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    stated, found = stated_and_found(tmp_path)
    assert stated in (found, StatedRope(found.window, None))
    assert stated == found or kind in ("qwen3", "gemma")


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
        {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": None},
        {"rope_parameters": 3},
        {"max_position_embeddings": "64"},
        {"dual_chunk_attention_config": {"original_max_position_embeddings": 32}},
        {"text_config": {"max_position_embeddings": 64}},
    ],
)
def test_a_window_that_can_be_read_in_other_ways_is_left_to_transformers(tmp_path, changes):
    config = {"model_type": "llama", "head_dim": 8, "max_position_embeddings": 64, "rope_parameters": {"rope_theta": 1e4}}
    for given, found in ((config, StatedRope(64, 4)), (config | changes, None)):
        (tmp_path / "config.json").write_text(json.dumps(given))
        assert stated_rope(base_of(tmp_path)) == found
    assert stated_rope(base_of("org/name")) is None
    assert stated_rope(base_of(tmp_path, gguf_file="base.gguf")) is None


def test_pairs_of_a_part_of_the_channels_are_left_to_transformers(tmp_path):
    config = {
        "model_type": "llama",
        "head_dim": 8,
        "max_position_embeddings": 64,
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stated_rope(base_of(tmp_path)) == StatedRope(64, None)
