"""What short prompts meet on a server: checked against the separate reading of vLLM's rules."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig

from data_schemas.params import RopeMethod
from tasks.model.as_served import served_plan, why_same
from tasks.model.rope_config import published_config
from tasks.model.rope_plan import RopePlan, plan_rope
from tasks.publish.serving.rules import Written, read_as_vllm

FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}


def config() -> PretrainedConfig:
    return LlamaConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, max_position_embeddings=128, vocab_size=16)


def planned(method: RopeMethod, factors: dict[str, list[float]] | None = None) -> RopePlan:
    return plan_rope(config(), 512, method, factors=factors, packed_rows=False)


def as_vllm(plan: RopePlan, length: int) -> tuple[np.ndarray, float]:
    trial = config()
    plan.apply(trial)
    written = Written(published_config(trial.to_dict(), plan.rope_parameters, plan.max_position_embeddings), {})
    return read_as_vllm(written).frequencies(length)


def test_longrope_serves_short_prompts_with_the_long_factors() -> None:
    plan = planned("longrope", FACTORS)
    served = served_plan(plan)
    assert served is not None
    for length in (16, 128, 129, 512):
        frequencies, factor = served.frequencies(length)
        expected, expected_factor = as_vllm(plan, length)
        np.testing.assert_allclose(frequencies, expected, rtol=1e-6)
        assert factor == pytest.approx(expected_factor)
    assert not np.allclose(plan.frequencies(128)[0], served.frequencies(128)[0]), "transformers takes the short ones"


@pytest.mark.parametrize("method", ["linear", "yarn", "ntk"])
def test_static_methods_are_measured_as_they_are_served(method: RopeMethod) -> None:
    plan = planned(method)
    assert served_plan(plan) is None
    assert f"{method} scales prompts of every length alike" in why_same(plan)
    for length in (16, 512):
        frequencies, factor = plan.frequencies(length)
        expected, expected_factor = as_vllm(plan, length)
        np.testing.assert_allclose(frequencies, expected, rtol=1e-6)
        assert factor == pytest.approx(expected_factor)


def test_reasons_not_to_measure_again() -> None:
    assert "dynamic leaves prompts within the base's window unscaled here and in vLLM" in why_same(planned("dynamic"))
    equal = {name: FACTORS["long_factor"] for name in FACTORS}
    assert "the short and the long factors are the same" in why_same(planned("longrope", equal))


def test_dynamic_leaves_short_prompts_unscaled_here_and_in_vllm() -> None:
    plan = planned("dynamic")
    np.testing.assert_allclose(plan.frequencies(128)[0], as_vllm(plan, 128)[0], rtol=1e-6)


def test_a_model_with_the_served_plan_differs_within_the_window_and_not_beyond() -> None:
    usual_plan = planned("longrope", FACTORS)
    served_one = served_plan(usual_plan)
    assert served_one is not None

    def logits(plan: RopePlan, num_tokens: int) -> Any:
        changed = config()
        plan.apply(changed)
        torch.manual_seed(0)
        with torch.inference_mode():
            return LlamaForCausalLM(changed).eval()(input_ids=torch.arange(num_tokens)[None] % 16).logits

    assert not torch.allclose(logits(usual_plan, 100), logits(served_one, 100), atol=1e-5)
    assert torch.equal(logits(usual_plan, 200), logits(served_one, 200))
