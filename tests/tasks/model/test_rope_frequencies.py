"""The formulas: against values worked out by hand, and against the installed transformers over random models."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tasks.model.rope_frequencies import default_frequencies, ntk_theta, scaled_frequencies
from tasks.model.rope_plan import RopePlan, plan_rope

# d = 8, b = 10000: the unscaled frequencies are 1, 0.1, 0.01 and 0.001.
EIGHT = {"rope_theta": 10_000.0}


def frequencies(parameters: dict, maximum: int = 2048, seq_len: int = 1) -> tuple[list[float], float]:
    values, attention = scaled_frequencies(EIGHT | parameters, 8, maximum, seq_len)
    return list(values), attention


def test_default_and_linear_by_hand() -> None:
    assert frequencies({"rope_type": "default"}) == (pytest.approx([1, 0.1, 0.01, 0.001]), 1.0)
    assert frequencies({"rope_type": "linear", "factor": 4.0}) == (pytest.approx([0.25, 0.025, 0.0025, 0.00025]), 1.0)


def test_yarn_by_hand() -> None:
    # Within 2048 tokens the pairs turn 326, 32.6, 3.26 and 0.326 times; 32 turns lie at index 1.008 -> 1 and one turn at
    # 2.513 -> 3, so index 2 is half interpolated: 0.01 (0.5 / 4 + 0.5).
    values, attention = frequencies({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048})
    assert values == pytest.approx([1, 0.1, 0.00625, 0.00025])
    assert attention == pytest.approx(1.1386294361)


def test_llama3_by_hand() -> None:
    # Within 8192 tokens the last pair turns 1.303797 times, a share 0.101266 of the way from 1 to 4.
    parameters = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    values, attention = frequencies(parameters | {"original_max_position_embeddings": 8192})
    assert values == pytest.approx([1, 0.1, 0.01, 0.001 * (0.898734 / 8 + 0.101266)], rel=1e-5)
    assert attention == 1.0


def test_ntk_divides_the_lowest_frequency_by_the_factor_and_keeps_the_highest() -> None:
    theta = ntk_theta(10_000.0, 4.0, 8)
    assert theta == pytest.approx(63_496.0420787)
    assert default_frequencies(theta, 8)[[0, -1]] == pytest.approx([1, 0.00025])


def test_dynamic_by_hand() -> None:
    parameters = {"rope_type": "dynamic", "factor": 4.0}
    assert frequencies(parameters, maximum=512, seq_len=512)[0] == pytest.approx([1, 0.1, 0.01, 0.001])
    # At four times the window the base grows by (4 * 4 - 3)^(8/6), and the lowest frequency shrinks 13 times.
    assert frequencies(parameters, maximum=512, seq_len=2048)[0][-1] == pytest.approx(0.001 / 13)


def test_longrope_by_hand() -> None:
    parameters = {
        "rope_type": "longrope",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "short_factor": [1.0, 1.0, 1.0, 2.0],
        "long_factor": [1.0, 2.0, 4.0, 5.0],
    }
    assert frequencies(parameters, seq_len=512)[0] == pytest.approx([1, 0.1, 0.01, 0.0005])
    values, attention = frequencies(parameters, seq_len=513)
    assert values == pytest.approx([1, 0.05, 0.0025, 0.0002])
    assert attention == pytest.approx(1.1055416)  # sqrt(1 + ln 4 / ln 512) = sqrt(1 + 2/9)


def test_unknown_type_has_no_formula() -> None:
    with pytest.raises(ValueError, match="proportional"):
        frequencies({"rope_type": "proportional"})


def paper_yarn(theta: float, dim: int, original: int, factor: float) -> list[float]:
    """YaRN pair by pair in plain Python, with the rounded bounds of the authors' code."""

    def index(turns: float) -> float:
        return dim / 2 * math.log(original / (2 * math.pi * turns), theta)

    low, high = max(math.floor(index(32)), 0), min(math.ceil(index(1)), dim - 1)
    result = []
    for i in range(dim // 2):
        ramp = 0.0 if i <= low else 1.0 if i >= high else (i - low) / (high - low)
        frequency = theta ** (-2 * i / dim)
        result.append((1 - ramp) * frequency + ramp * frequency / factor)
    return result


heads = st.sampled_from([8, 16, 32, 64, 80, 96, 128, 256])
thetas = st.floats(1e3, 1e8)
windows = st.integers(32, 1 << 17)
stretches = st.floats(1.05, 32)


def llama(head_dim: int, theta: float, window: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=head_dim * 2,
        head_dim=head_dim,
        num_attention_heads=2,
        max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )


def computed_by_transformers(plan: RopePlan, config: LlamaConfig, seq_len: int) -> tuple[np.ndarray, float]:
    plan.apply(config)
    rope_type = config.rope_parameters["rope_type"]
    if rope_type == "default":
        theta = config.rope_parameters["rope_theta"]
        return theta ** (-np.arange(0, plan.rotary_dim, 2) / plan.rotary_dim), 1.0
    inv_freq, attention = ROPE_INIT_FUNCTIONS[rope_type](config, seq_len=seq_len)
    return inv_freq.double().numpy(), attention


@settings(max_examples=60)
@given(heads, thetas, windows, stretches, st.sampled_from(["linear", "dynamic", "ntk", "yarn", "llama3"]), st.floats(0.1, 1))
def test_every_method_agrees_with_transformers(
    head_dim: int, theta: float, window: int, stretch: float, method: str, share: float
) -> None:
    config = llama(head_dim, theta, window)
    target = max(window + 1, int(window * stretch))
    plan = plan_rope(config, target, method)  # type: ignore[arg-type]
    seq_len = max(1, int(target * share))
    ours, attention = plan.frequencies(seq_len)
    theirs, their_attention = computed_by_transformers(plan, config, seq_len)
    assert ours.dtype == np.float64
    assert ours.shape == (head_dim // 2,)
    np.testing.assert_allclose(ours, theirs, rtol=3e-5)  # theirs is float32
    assert attention == pytest.approx(their_attention, rel=1e-6)


@settings(max_examples=60)
@given(heads, thetas, windows, stretches)
def test_yarn_agrees_with_the_paper_and_stays_between_its_two_limits(
    head_dim: int, theta: float, window: int, stretch: float
) -> None:
    plan = plan_rope(llama(head_dim, theta, window), max(window + 1, int(window * stretch)), "yarn")
    values, attention = plan.frequencies(plan.target_length)
    np.testing.assert_allclose(values, paper_yarn(theta, head_dim, window, plan.factor), rtol=1e-9)
    unscaled = default_frequencies(theta, head_dim)
    assert np.all(values <= unscaled * (1 + 1e-12))
    assert np.all(values >= unscaled / plan.factor * (1 - 1e-12))
    assert attention == pytest.approx(1 + 0.1 * math.log(plan.factor))


@settings(max_examples=30)
@given(heads, thetas, windows, st.data())
def test_longrope_agrees_with_transformers(head_dim: int, theta: float, window: int, data: st.DataObject) -> None:
    numbers = st.lists(st.floats(0.5, 64, width=32), min_size=head_dim // 2, max_size=head_dim // 2)
    factors = {"short_factor": data.draw(numbers), "long_factor": data.draw(numbers)}
    config = llama(head_dim, theta, window)
    plan = plan_rope(config, window * 4, "longrope", factors=factors, packed_rows=False)
    for seq_len in (window, window + 1):
        theirs, their_attention = computed_by_transformers(plan, config, seq_len)
        ours, attention = plan.frequencies(seq_len)
        np.testing.assert_allclose(ours, theirs, rtol=3e-5)
        assert attention == pytest.approx(their_attention, rel=1e-6)
