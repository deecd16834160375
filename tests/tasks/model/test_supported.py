"""Bases that cannot be trained are refused by name before any work; LoRA targets are found or refused by name."""

import json

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from data_schemas.errors import UserError
from data_schemas.params import ModelParams, TrainingParams
from ray_jobs.finetune.training.targets import linear_names, resolve_targets
from tasks.model.base_model import load_config
from tasks.model.supported import refuse_unsupported
from tests.tiny_models import tiny_config

REFUSED = {
    "Gemma3Config": ({}, "multimodal"),
    "Qwen2VLConfig": ({}, "multimodal"),
    "T5Config": ({}, "encoder"),
    "CLIPTextConfig": ({}, "no causal language model"),
}


def configuration(name, sizes):
    if not hasattr(transformers, name):
        pytest.skip(f"this transformers has no {name}")
    return getattr(transformers, name)(**sizes)


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_base_that_is_no_causal_model_of_text_is_refused_by_name_and_reason(name):
    sizes, reason = REFUSED[name]
    config = configuration(name, sizes)
    with pytest.raises(UserError, match=reason) as refused:
        refuse_unsupported(config)
    assert repr(config.model_type) in str(refused.value)
    assert "choose another base" in str(refused.value)


def test_a_base_folder_is_refused_when_its_configuration_is_read(tmp_path):
    """Every command, `ropeway plan` among them, reads it first."""
    config = configuration("T5Config", {})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(UserError, match=r"'t5'.*encoder"):
        load_config(ModelParams(base=str(tmp_path), target_length=16384))


def names_of(kind):
    with torch.device("meta"):
        return linear_names(AutoModelForCausalLM.from_config(tiny_config(kind)))


def test_default_targets_map_to_fused_projections():
    default = TrainingParams().lora_targets
    assert resolve_targets(default, names_of("llama"), "Llama") == default
    assert resolve_targets(default, names_of("phi3"), "Phi3") == ("qkv_proj", "o_proj")
    assert resolve_targets((*default, "gate_proj", "up_proj"), names_of("phi3"), "Phi3") == (
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
    )
    assert resolve_targets(("all-linear",), names_of("phi3"), "Phi3") == ("all-linear",)
    assert resolve_targets(("q_proj", "all-linear"), names_of("phi3"), "Phi3") == ("all-linear",), "it takes in the others"


def test_a_target_with_dots_is_the_end_of_a_full_name():
    paths = ("self_attn.q_proj", "layers.1.mlp.up_proj")
    assert resolve_targets(paths, names_of("llama"), "Llama") == paths


@pytest.mark.parametrize("name", ["w_pack", "self_attn.v_prj", "attn.q_proj"])
def test_a_target_that_exists_under_no_name_is_refused_with_those_that_do(name):
    with pytest.raises(
        UserError, match=rf"names {name}, which Llama does not have: choose from down_proj, .*v_proj, or all-linear"
    ):
        resolve_targets(("q_proj", name), names_of("llama"), "Llama")
