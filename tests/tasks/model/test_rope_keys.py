"""What a plan takes over from its base, what it refuses by name, and how long a base is read to be."""

import copy
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from data_schemas.errors import UserError
from tasks.model.rope_config import published_config
from tasks.model.rope_plan import RopePlan, plan_rope

SIZES = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
FACTORS = {"short_factor": [1.5] * 4, "long_factor": [1.5] * 4}


def ministral(**rope: Any) -> Any:
    given = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16, "llama_4_scaling_beta": 0.1,
             "mscale": 1.0, "mscale_all_dim": 1.0, "max_position_embeddings": 64} | rope  # fmt: skip
    return transformers.Ministral3Config(**SIZES, max_position_embeddings=64, rope_parameters=given)


def phi_moe(short: float = 1.25, long: float = 1.25) -> Any:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16, **FACTORS,
            "short_mscale": short, "long_mscale": long}  # fmt: skip
    sizes = {key: value for key, value in SIZES.items() if key != "head_dim"} | {"num_local_experts": 2}
    config = transformers.PhimoeConfig(**sizes, max_position_embeddings=64, rope_parameters=rope)
    config.original_max_position_embeddings = 16
    return config


def runs_after(plan: RopePlan, config: Any) -> torch.Tensor:
    """Logits of the model with the plan, read back from what would be published."""
    extended = copy.deepcopy(config)
    plan.apply(extended)
    written = published_config(extended.to_dict(), plan.rope_parameters, plan.max_position_embeddings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(type(config).from_dict(written)).eval()
    with torch.no_grad():
        logits = model(torch.arange(90)[None] % 32, use_cache=False).logits
    assert logits.isfinite().all()
    return logits


def test_a_key_that_the_model_needs_is_carried_and_the_model_runs() -> None:
    config = ministral()
    plan = plan_rope(config, 128)
    assert plan.rope_parameters["llama_4_scaling_beta"] == 0.1
    assert plan.rope_parameters["max_position_embeddings"] == 128
    assert any("llama_4_scaling_beta" in note for note in plan.notes)
    without = copy.deepcopy(plan.rope_parameters) | {"llama_4_scaling_beta": 0.0}
    logits = runs_after(plan, config)
    config.rope_parameters = {**config.rope_parameters, "llama_4_scaling_beta": 0.0}
    assert plan_rope(config, 128).rope_parameters == without
    assert (logits - runs_after(plan_rope(config, 128), config)).abs().max() > 1e-4, "the model computes with it"


def test_a_key_that_nobody_knows_is_carried() -> None:
    config = LlamaConfig(
        max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "of_tomorrow": 3}
    )
    for method in ("linear", "dynamic", "ntk", "yarn", "llama3"):
        assert plan_rope(config, 256, method).rope_parameters["of_tomorrow"] == 3  # type: ignore[arg-type]


def test_what_counts_from_the_original_length_keeps_it_or_is_refused() -> None:
    config = ministral(rope_type="default", factor=None)
    assert plan_rope(config, 128, "ntk").rope_parameters["original_max_position_embeddings"] == 16
    with pytest.raises(UserError, match="original length of 16 tokens from which this base's llama_4_scaling_beta counts"):
        plan_rope(config, 128, "yarn")


def test_the_mscales_of_phi_moe_are_carried_and_are_its_attention_factor() -> None:
    plan = plan_rope(phi_moe(), 128, factors=FACTORS)
    assert (plan.method, plan.rope_parameters["short_mscale"], plan.rope_parameters["long_mscale"]) == ("longrope", 1.25, 1.25)
    assert plan.frequencies(128)[1] == 1.25
    runs_after(plan, phi_moe())
    with pytest.raises(UserError, match=r"short_mscale 1 or long_mscale 1\.25.*packed rows would train the wrong one"):
        plan_rope(phi_moe(short=1.0), 128, factors=FACTORS)
    assert plan_rope(phi_moe(short=1.0), 128, factors=FACTORS, packed_rows=False).rope_parameters["short_mscale"] == 1.0


def test_an_unscaled_phi_moe_is_extended_without_yarn() -> None:
    sizes = {key: value for key, value in SIZES.items() if key != "head_dim"} | {"num_local_experts": 2}
    config = transformers.PhimoeConfig(
        **sizes, max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
    )
    assert plan_rope(config, 128).method == "ntk"


def test_a_dynamic_scaling_that_is_none_is_refused_with_the_same_model_written_plainly() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 1.0, "alpha": 1000.0}
    config = transformers.HunYuanDenseV1Config(**SIZES, max_position_embeddings=64, rope_parameters=rope)
    with pytest.raises(UserError, match=r"alpha 1000.*write rope_type default and rope_theta (\S+) into") as refused:
        plan_rope(config, 128)
    theta = float(str(refused.value).split("rope_theta ")[1].split()[0])
    plain = copy.deepcopy(config)
    plain.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    frequencies = []
    for one in (config, plain):
        torch.manual_seed(0)
        frequencies.append(AutoModelForCausalLM.from_config(one).model.rotary_emb.inv_freq)
    torch.testing.assert_close(*frequencies)


def test_dual_chunk_attention_is_left_out_everywhere_and_its_window_is_the_trained_one() -> None:
    config = Qwen2Config(max_position_embeddings=4096, rope_parameters={"rope_type": "default", "rope_theta": 1e7})
    config.dual_chunk_attention_config = {"chunk_size": 1024, "local_size": 32, "original_max_position_embeddings": 1024}
    plan = plan_rope(config, 2048)
    assert plan.base_window == 1024
    assert any("dual_chunk_attention_config is left out" in note and "1024" in note for note in plan.notes)
    written = published_config(config.to_dict(), plan.rope_parameters, plan.max_position_embeddings)
    plan.apply(config)
    assert "dual_chunk_attention_config" not in written
    assert "dual_chunk_attention_config" not in config.to_dict()


def deepseek_coder() -> LlamaConfig:
    return LlamaConfig(max_position_embeddings=16384, rope_parameters={"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0})


def test_a_linear_base_is_read_as_vllm_reads_it_unless_its_window_is_stated() -> None:
    unstated = plan_rope(deepseek_coder(), 131072)
    assert (unstated.original_length, unstated.base_window) == (16384, 65536)
    assert any("set model.window to 16384" in note for note in unstated.notes)
    stated = plan_rope(deepseek_coder(), 65536, window=16384)
    assert (stated.original_length, stated.base_window, stated.factor, stated.max_position_embeddings) == (
        4096,
        16384,
        16.0,
        4096,
    )
    assert any("window is 16384 tokens, as model.window says, and 4096 before its scaling" in note for note in stated.notes)
    torch.testing.assert_close(
        stated.frequencies(1)[0] * 16, plan_rope(LlamaConfig(rope_theta=1e5), 65536, "linear").frequencies(1)[0] * 32
    )


def test_a_stated_window_counts_for_every_scaling_and_must_be_possible() -> None:
    plain = LlamaConfig(max_position_embeddings=32768, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    plan = plan_rope(plain, 16384, window=8192)
    assert (plan.base_window, plan.factor, plan.rope_parameters["original_max_position_embeddings"]) == (8192, 2.0, 8192)
    with pytest.raises(UserError, match="16383, which is not a multiple of the factor 4"):
        plan_rope(deepseek_coder(), 65536, window=16383)
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 4096}
    with pytest.raises(UserError, match="scales 4096 tokens by 4 to 16384: state a length between them"):
        plan_rope(LlamaConfig(max_position_embeddings=16384, rope_parameters=yarn), 65536, window=32768)
