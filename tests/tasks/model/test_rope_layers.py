"""RoPE by layer type: only the layers in full are scaled, and transformers and vLLM read that from what is published."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DeepseekV4Config,
    Gemma3TextConfig,
    ModernBertDecoderConfig,
    Olmo3Config,
)

from data_schemas.errors import UserError
from tasks.model.rope_frequencies import scaled_frequencies
from tasks.model.rope_layers import FULL, LOCAL
from tasks.model.rope_plan import RopePlan, plan_rope
from tasks.model.rotary_modules import forget_lengths
from tasks.publish.serving.contract import contract_problems, trained_as_planned
from tasks.publish.serving.rules import READERS, Written, spelling_problems

WINDOW, TARGET, HEAD = 64, 256, 16
SIZES = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": HEAD, "sliding_window": 8, "layer_types": [LOCAL, FULL], "pad_token_id": 0,
         "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
CLASSES = {"gemma3": Gemma3TextConfig, "olmo3": Olmo3Config, "modernbert": ModernBertDecoderConfig}
METHODS = ["linear", "dynamic", "ntk", "yarn", "llama3", "longrope"]


def base(kind="gemma3", **extra):
    return CLASSES[kind](**SIZES | {"max_position_embeddings": WINDOW} | extra)


def planned(config, method, target=TARGET):
    half = HEAD // 2
    factors = {"short_factor": [1.0] * half, "long_factor": [1.0 + i for i in range(half)]} if method == "longrope" else None
    return plan_rope(config, target, method, factors=factors, packed_rows=False)


def turned(model, seq_len, kind):
    """Frequencies and factor that the model's rotary embedding uses for a layer type, by running it."""
    rotary = model.base_model.rotary_emb
    cos, sin = rotary(torch.zeros(1, 2, 1), torch.tensor([[1, seq_len - 1]]), layer_type=kind)
    cosine, sine = (t[0, 0, : HEAD // 2].double().numpy() for t in (cos, sin))
    return np.arctan2(sine, cosine), np.hypot(sine, cosine)


@pytest.mark.parametrize("kind", list(CLASSES))
def test_dynamic_frequencies_of_each_kind_of_layer_are_forgotten(kind):
    config = base(kind)
    plan = planned(config, "dynamic")
    plan.apply(config)
    model = AutoModelForCausalLM.from_config(config).eval()
    for seq_len in (TARGET, WINDOW, WINDOW + 1, TARGET):
        forget_lengths(model)
        np.testing.assert_allclose(turned(model, seq_len, FULL)[0], plan.frequencies(seq_len)[0], rtol=1e-5)


@pytest.mark.parametrize("kind", list(CLASSES))
@pytest.mark.parametrize("method", METHODS)
def test_transformers_scales_the_layers_in_full_alone_before_and_after_publishing(kind, method, tmp_path):
    config = base(kind)
    local = copy.deepcopy(config.rope_parameters[LOCAL])
    plan = planned(config, method)
    assert plan == RopePlan.from_json(plan.to_json())
    plan.apply(config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    plan.write_config(tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for seq_len in (WINDOW // 2, WINDOW, WINDOW + 1, TARGET):
        for candidate in (model, reloaded):
            full, scale = turned(candidate, seq_len, FULL)
            expected, attention = plan.frequencies(seq_len)
            np.testing.assert_allclose(full, expected, rtol=1e-5)
            np.testing.assert_allclose(scale, attention, rtol=1e-5)
            kept, scale = turned(candidate, seq_len, LOCAL)
            np.testing.assert_allclose(kept, scaled_frequencies(local, HEAD, WINDOW, seq_len)[0], rtol=1e-5)
            np.testing.assert_allclose(scale, 1.0, rtol=1e-5)
    written = Written.load(tmp_path)
    assert spelling_problems(written.config) == []
    meant = trained_as_planned(plan)
    for consumer, why in plan.servable_by().items():
        assert why or contract_problems(consumer, written, meant) == [], consumer
    assert plan.servable_by()["transformers-5"] == ""


@pytest.mark.parametrize("method", ["linear", "ntk", "yarn", "llama3"])
def test_gemma_3_is_published_for_every_reader(method, tmp_path):
    """transformers 4 reads rope_theta, rope_scaling and rope_local_base_freq; vLLM serves the maximum, whatever the factor."""
    config = base()
    plan = planned(config, method)
    assert set(plan.servable_by().values()) == {""}
    plan.apply(config)
    config.save_pretrained(tmp_path)
    plan.write_config(tmp_path)
    written = Written.load(tmp_path)
    assert written.config["rope_local_base_freq"] == 10_000.0
    assert written.config["rope_theta"] == plan.rope_theta
    assert written.config["max_position_embeddings"] == TARGET
    for consumer in READERS:
        assert contract_problems(consumer, written, trained_as_planned(plan)) == []
    broken = Written(written.config | {"rope_local_base_freq": 500.0}, {})
    assert "sliding_attention layers" in contract_problems("transformers-4.57", broken, trained_as_planned(plan))[0]
    assert "rope_local_base_freq is 500.0" in spelling_problems(broken.config)[0]
    again = plan_rope(AutoConfig.from_pretrained(tmp_path), 2 * TARGET)
    assert again.base_window == TARGET, "a published model is a base again"


def test_a_gemma_3_that_is_scaled_already_states_the_window_after_scaling():
    """Gemma 3 4B: linear, factor 8, and a maximum of 131072."""
    config = base(rope_scaling={"rope_type": "linear", "factor": 8.0}, max_position_embeddings=8 * WINDOW)
    plan = plan_rope(config, 16 * WINDOW)
    assert (plan.method, plan.original_length, plan.base_window, plan.factor) == ("linear", WINDOW, 8 * WINDOW, 16.0)
    assert plan.max_position_embeddings == 16 * WINDOW
    assert not any("deepseek-coder" in note for note in plan.notes)
    assert any("Only layers of type full_attention are scaled" in note for note in plan.notes)


def test_other_classes_are_published_for_transformers_5_and_vllm_alone(tmp_path):
    """Their older spelling has no place for a second RoPE, or would replace both."""
    for kind in ("olmo3", "modernbert"):
        config = base(kind)
        plan = planned(config, "yarn")
        plan.apply(config)
        config.save_pretrained(tmp_path / kind)
        plan.write_config(tmp_path / kind)
        written = json.loads((tmp_path / kind / "config.json").read_text())
        assert not {"rope_scaling", "rope_theta"} & set(written)
        assert "one RoPE for all layers" in plan.servable_by()["transformers-4.57"]


def test_what_cannot_be_scaled_by_layer_is_refused_by_name():
    def refusal(config):
        with pytest.raises(UserError) as caught:
            plan_rope(config, 10**6)
        return str(caught.value)

    assert "layers have no sliding_window" in refusal(base(sliding_window=None))
    assert "none of them attends in full" in refusal(base(layer_types=[LOCAL, LOCAL]))
    assert "(main, compress)" in refusal(DeepseekV4Config())
