"""What is planned for which base, how a scaled base is extended further, and the words of refusals."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from data_schemas.errors import UserError
from tasks.model.rope_plan import RopePlan, plan_rope

THETA = 10_000.0


def base(window: int = 512, **rope: Any) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": THETA} | rope,
    )


def extended(window: int, target: int, method: str) -> LlamaConfig:
    config = base(window)
    plan_rope(config, target, method).apply(config)  # type: ignore[arg-type]
    return config


def refusal(config: PreTrainedConfig, target: int = 2048, method: Any = "auto", **kwargs: Any) -> str:
    with pytest.raises(UserError) as caught:
        plan_rope(config, target, method, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message, f"more than one sentence: {message}"
    return message


def test_planning_changes_nothing() -> None:
    config = base()
    before = copy.deepcopy(config.to_dict())
    plan_rope(config, 2048)
    assert config.to_dict() == before


@pytest.mark.parametrize(("target", "required"), [(1024, False), (2048, False), (2049, True), (16_384, True)])
def test_auto_is_yarn_and_asks_for_training_above_four_times(target: int, required: bool) -> None:
    plan = plan_rope(base(), target)
    assert (plan.method, plan.training_required) == ("yarn", required)
    assert plan.factor == target / 512
    assert ("required" in plan.reason) is required


def test_published_maximum_by_method() -> None:
    published = {m: plan_rope(base(), 2048, m).max_position_embeddings for m in ("linear", "dynamic", "ntk", "yarn", "llama3")}  # type: ignore[arg-type]
    assert published == {"linear": 512, "dynamic": 512, "ntk": 2048, "yarn": 2048, "llama3": 2048}


def test_yarn_carries_the_original_and_no_attention_factor_that_some_readers_drop() -> None:
    plan = plan_rope(base(), 2048, "yarn")
    assert plan.rope_parameters == {
        "rope_type": "yarn",
        "rope_theta": THETA,
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    }


@settings(max_examples=200)
@given(st.integers(32, 200_000), st.integers(1, 2_000_000), st.sampled_from(["linear", "yarn"]))
def test_multiplying_back_gives_the_target_exactly(window: int, more: int, method: str) -> None:
    plan = plan_rope(base(window), window + more, method)  # type: ignore[arg-type]
    assert int(window * plan.rope_parameters["factor"]) == window + more
    assert plan.servable_by()["vllm"] == ""


@pytest.mark.parametrize("method", ["linear", "yarn", "ntk", "llama3"])
def test_two_extensions_equal_one(method: Any) -> None:
    once = plan_rope(base(512), 8192, method)
    twice = plan_rope(extended(512, 2048, method), 8192, "auto" if method == "llama3" else method)
    assert (twice.base_window, twice.extension) == (2048, 4.0)
    assert twice.max_position_embeddings == once.max_position_embeddings
    ours, theirs = twice.frequencies(8192), once.frequencies(8192)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    assert ours[1] == pytest.approx(theirs[1])


def test_a_dynamic_base_counts_as_one_without_scaling() -> None:
    dynamic = base(512, rope_type="dynamic", factor=4.0)
    for method in ("linear", "dynamic", "ntk", "yarn", "llama3"):
        plan, plain = plan_rope(dynamic, 4096, method), plan_rope(base(512), 4096, method)  # type: ignore[arg-type]
        assert plan.rope_parameters == plain.rope_parameters
        assert any("replaced" in note for note in plan.notes)


def test_llama3_goes_on_with_its_bands_where_they_are() -> None:
    llama31 = base(
        131_072,
        rope_type="llama3",
        rope_theta=5e5,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    plan = plan_rope(llama31, 262_144)
    assert (plan.method, plan.factor, plan.original_length, plan.training_required) == ("llama3", 16.0, 8192, True)
    before, after = (plan_rope(llama31, n).frequencies(1)[0] for n in (131_073, 262_144))
    assert before[0] == after[0] == 1.0
    assert before[-1] / after[-1] == pytest.approx(2.0, rel=1e-4)


def test_yarn_keeps_what_the_base_was_trained_with() -> None:
    scaled = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "beta_fast": 16.0, "truncate": False}
    implied = 0.1 * math.log(4.0) + 1.0
    plan = plan_rope(base(2048, **scaled, attention_factor=implied), 4096)
    assert plan.rope_parameters["beta_fast"] == 16.0
    assert plan.rope_parameters["truncate"] is False
    assert "attention_factor" not in plan.rope_parameters
    assert plan.servable_by()["vllm"] == ""
    own = plan_rope(base(2048, **scaled, attention_factor=1.5), 4096)
    assert own.frequencies(4096)[1] == 1.5
    assert "attention_factor" in own.servable_by()["vllm"]


def test_window_of_a_yarn_base_published_with_its_original_maximum() -> None:
    config = base(512, rope_type="yarn", factor=4.0, original_max_position_embeddings=512)
    assert plan_rope(config, 4096).base_window == 2048
    assert "window of 2048" in refusal(config, 2048)


def test_dimensions_of_the_rotation() -> None:
    qwen3 = Qwen3Config(hidden_size=1024, num_attention_heads=16, head_dim=128, max_position_embeddings=4096)
    assert plan_rope(qwen3, 8192).rotary_dim == 128
    partial = base(512, partial_rotary_factor=0.5)
    plan = plan_rope(partial, 2048)
    assert plan.rotary_dim == 16
    assert plan.rope_parameters["partial_rotary_factor"] == 0.5
    assert plan.frequencies(1)[0].shape == (8,)


def test_sliding_windows_are_mentioned_only_where_they_are_used() -> None:
    shared = {"max_position_embeddings": 4096, "sliding_window": 1024}
    assert any("1024" in note for note in plan_rope(MistralConfig(**shared), 8192).notes)
    assert plan_rope(Qwen2Config(**shared, use_sliding_window=False), 8192).notes == ()


def test_phi3_gets_a_changed_theta_because_its_config_knows_no_yarn() -> None:
    assert plan_rope(Phi3Config(), 8192).method == "ntk"
    assert "Phi3Config does not take rope_method linear" in refusal(Phi3Config(), 8192, "linear")


def test_a_stated_theta_is_the_base_frequency_and_nothing_else_changes() -> None:
    plan = plan_rope(base(), 2048, "theta", theta=5e5)
    assert plan.rope_parameters == {"rope_type": "default", "rope_theta": 5e5}
    assert plan_rope(base(), 2048, theta=5e5).rope_parameters == plan.rope_parameters  # auto takes it
    assert plan.rope_theta == 5e5
    assert (plan.max_position_embeddings, plan.factor, plan.training_required) == (2048, 4.0, True)
    assert not any(plan.servable_by().values())
    np.testing.assert_allclose(plan.frequencies(2048)[0], 5e5 ** (-np.arange(0, 32, 2) / 32))
    by_ntk = plan_rope(base(), 2048, "ntk")
    assert plan_rope(base(), 2048, "theta", theta=by_ntk.rope_theta).rope_parameters == by_ntk.rope_parameters
    assert f"{by_ntk.rope_theta:g}" in " ".join(plan.notes)
    assert "smaller" in " ".join(plan_rope(base(), 2048, "theta", theta=100).notes)


def test_a_stated_theta_stands_below_the_bands_of_llama3() -> None:
    plan = plan_rope(extended(512, 1024, "llama3"), 4096, "theta", theta=1e6)
    assert plan.rope_parameters["rope_theta"] == 1e6
    assert (plan.rope_parameters["rope_type"], plan.rope_parameters["factor"]) == ("llama3", 2.0)


def test_refusals_say_what_to_use_instead() -> None:
    assert "window of 512" in refusal(base(), 512)
    assert "GPT2" in refusal(GPT2Config())
    assert "multimodal" in refusal(base(mrope_section=[4, 6, 6]))
    assert "choose auto" in refusal(extended(512, 1024, "llama3"), 4096, "yarn")
    assert "factor from 2 to 8" in refusal(extended(512, 1024, "llama3"), 4096, "llama3")
    assert "choose yarn" in refusal(extended(512, 1024, "yarn"), 4096, "ntk")
    assert "choose linear" in refusal(extended(512, 1024, "linear"), 4096, "dynamic")
    assert "rope_factors_file" in refusal(base(), method="longrope")
    assert "longrope" in refusal(base(), method="yarn", factors={"short_factor": [], "long_factor": []})
    assert "rope_theta" in refusal(base(), method="theta")
    assert "choose theta" in refusal(base(), method="yarn", theta=1e6)
    assert "choose linear" in refusal(extended(512, 1024, "linear"), 4096, theta=1e6)
    assert "yarn or ntk" in refusal(base(), method="dynamic", serving=("vllm",))
    assert "transformers-5, transformers-4.57, vllm" in refusal(base(), serving=("ollama",))


def test_a_rope_dict_without_theta_is_refused() -> None:
    config = base()
    config.rope_parameters = {"rope_type": "default"}
    assert "rope_theta" in refusal(config)


@pytest.mark.parametrize(
    "factors",
    [
        {"short_factor": [1.0] * 16},
        {"short_factor": [1.0] * 16, "long_factor": [0.0] * 16},
        {"short_factor": [1.0] * 16, "long_factor": ["1"] * 16},
        {"short_factor": [1.0] * 16, "long_factor": 2.0},
        {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16, "mscale": 1.0},
    ],
)
def test_malformed_longrope_factors_are_refused(factors: dict) -> None:
    assert "16 positive numbers" in refusal(base(), method="longrope", factors=factors)


def test_factors_of_another_model_are_refused_with_both_counts() -> None:
    factors = {"short_factor": [1.0] * 16, "long_factor": [1.0] * 15}
    assert "long_factor has 15 numbers, and this model needs 16" in refusal(base(), method="longrope", factors=factors)


def test_longrope_takes_the_attention_factor_of_the_file() -> None:
    lists = {"short_factor": [2.0] * 16, "long_factor": [2.0] * 16}
    stated = plan_rope(base(), 2048, "longrope", factors=lists | {"attention_factor": 1.3})
    assert stated.rope_parameters["attention_factor"] == 1.3
    assert "attention_factor" in stated.servable_by()["vllm"]
    assert plan_rope(base(), 2048, "longrope", factors=lists).servable_by()["vllm"] == ""
    assert "not a positive number" in refusal(base(), method="longrope", factors=lists | {"attention_factor": [1.0]})


def test_longrope_on_packed_rows_needs_one_list() -> None:
    two = {"short_factor": [1.0] * 16, "long_factor": [4.0] * 16}
    assert "packed rows" in refusal(base(), method="longrope", factors=two)
    assert plan_rope(base(), 2048, "longrope", factors=two, packed_rows=False).servable_by()["transformers-4.57"] != ""
    one = plan_rope(base(), 2048, factors={"short_factor": [4.0] * 16, "long_factor": [4.0] * 16})
    assert one.method == "longrope"
    assert set(one.servable_by().values()) == {""}


def test_a_longrope_base_goes_on_with_new_factors_only() -> None:
    config = base()
    same = {"short_factor": [4.0] * 16, "long_factor": [4.0] * 16}
    plan_rope(config, 2048, "longrope", factors=same).apply(config)
    assert "rope_factors_file" in refusal(config, 4096)
    plan = plan_rope(config, 4096, factors={"short_factor": [8.0] * 16, "long_factor": [8.0] * 16})
    assert (plan.original_length, plan.factor, plan.base_window) == (512, 8.0, 2048)


def test_dynamic_is_never_called_ready_for_vllm() -> None:
    readers = plan_rope(base(), 2048, "dynamic").servable_by()
    assert readers["vllm"]
    assert readers["transformers-5"] == readers["transformers-4.57"] == ""


@pytest.mark.parametrize("method", ["auto", "linear", "dynamic", "ntk", "yarn", "llama3"])
def test_json_round_trip(method: Any) -> None:
    plan = plan_rope(base(), 3000, method)
    again = RopePlan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"method": "yarn"}', "3"])
def test_other_json_is_not_a_plan(text: str) -> None:
    with pytest.raises(UserError, match="not a RoPE plan"):
        RopePlan.from_json(text)


def test_a_plan_is_not_changed_by_the_config_it_was_applied_to() -> None:
    config, plan = base(), plan_rope(base(), 2048)
    plan.apply(config)
    config.rope_parameters["factor"] = 99.0
    assert plan.rope_parameters["factor"] == 4.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.factor = 2.0  # type: ignore[misc]


def test_description_has_a_row_for_each_thing_a_person_decides_by() -> None:
    rows = dict(plan_rope(base(), 2048, "dynamic").describe())
    assert rows["context length"] == "512 -> 2048 tokens (4x)"
    assert rows["read by vllm"].startswith("no: ")
    assert {"method", "why", "training", "rope_parameters", "max_position_embeddings", "note"} <= set(rows)


@pytest.mark.parametrize("method", ["yarn", "ntk", "llama3"])
def test_frequencies_can_be_scaled_for_more_than_the_target(method: Any) -> None:
    plan = plan_rope(base(), 2048, method, rope_length=4096)
    longer, short = plan_rope(base(), 4096, method), plan_rope(base(), 2048, method)
    np.testing.assert_array_equal(plan.frequencies(2048)[0], longer.frequencies(2048)[0])
    assert (plan.factor, plan.target_length, plan.max_position_embeddings) == (
        longer.factor,
        2048,
        short.max_position_embeddings,
    )
    assert any("scaled for 4096" in note for note in plan.notes)
    assert plan_rope(base(), 2048, method, rope_length=2048) == short


def test_methods_without_a_length_refuse_another_one() -> None:
    assert "dynamic" in refusal(base(), method="dynamic", rope_length=4096)
    assert "linear" in refusal(base(), method="linear", rope_length=4096)
    assert "theta" in refusal(base(), theta=1e6, rope_length=4096)


def test_a_release_scaled_for_more_than_its_target_goes_on_from_its_stated_target() -> None:
    config = base()
    plan_rope(config, 2048, "yarn", rope_length=4096).apply(config)
    further = plan_rope(config, 4096, "yarn", window=2048, rope_length=8192)
    assert (further.base_window, further.original_length, further.factor) == (2048, 512, 16)


def test_lists_unlike_those_of_longrope_are_told_and_taken() -> None:
    def told(short: list[float], long: list[float]) -> str:
        plan = plan_rope(base(), 2048, "longrope", factors={"short_factor": short, "long_factor": long}, two_lists=True)
        assert plan.notes == (), "what is stored does not change"
        return " ".join(text for what, text in plan.describe() if what == "note")

    rising = [1 + pair / 8 for pair in range(16)]
    assert told([1.0] * 16, rising) == ""
    assert "long_factor falls at pair 1 from 2.875 to 2.75" in told([1.0] * 16, rising[::-1])
    assert "short_factor falls at pair 2 from 1.2 to 1.1" in told([1.0, 1.2, 1.1, *[3.0] * 13], rising)
    assert "long_factor slows no pair" in told([1.0] * 16, [1.0] * 16)
    assert "long_factor has values below 1" in told([1.0] * 16, [0.9978, *rising[1:]]), "as MiniCPM4's"
