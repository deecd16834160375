"""Intervals against published examples and against theory."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluate.statistics import (
    Estimate,
    is_non_inferior,
    mean_with_t_interval,
    perplexity_estimate,
    perplexity_ratio,
    wilson_rate,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_newcombe_1998_table_1(successes: int, n: int, low: float, high: float) -> None:
    estimate = wilson_rate(successes, n, 0.95)
    assert estimate.value == successes / n
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_mean_interval_equals_the_textbook() -> None:
    """1..5: mean 3, standard deviation 1.5811, t(0.975, 4) = 2.7764."""
    estimate = mean_with_t_interval([1, 2, 3, 4, 5], 0.95)
    half = 2.776445 * 1.581139 / math.sqrt(5)
    assert estimate.value == 3
    assert (estimate.low, estimate.high) == (pytest.approx(3 - half, abs=1e-5), pytest.approx(3 + half, abs=1e-5))


def test_one_value_has_no_interval() -> None:
    assert mean_with_t_interval([2.5], 0.95) == Estimate(2.5, None, None)


def test_perplexity_weighs_tokens_and_not_documents() -> None:
    nll, num_tokens = np.array([10.0, 300.0]), np.array([10, 100])
    assert perplexity_estimate(nll, num_tokens, confidence=0.95, seed=0).value == pytest.approx(math.exp(310 / 110))


def test_bootstrap_interval_agrees_with_normal_theory_for_many_documents() -> None:
    nats = np.random.default_rng(0).normal(3, 0.5, 400)
    estimate = perplexity_estimate(nats * 128, np.full(400, 128), confidence=0.95, seed=1)
    half = 1.959964 * nats.std(ddof=1) / math.sqrt(400)
    assert estimate.low is not None
    assert estimate.high is not None
    assert math.log(estimate.low) == pytest.approx(nats.mean() - half, abs=0.1 * half)
    assert math.log(estimate.high) == pytest.approx(nats.mean() + half, abs=0.1 * half)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        nats = rng.normal(3, 0.5, 40)
        estimate = perplexity_estimate(nats * 128, np.full(40, 128), confidence=0.9, seed=trial)
        covered += estimate.low <= math.exp(3) <= estimate.high  # type: ignore[operator]
    assert 0.82 <= covered / 200 <= 0.96


def test_ratio_is_paired() -> None:
    """What makes a document hard cancels, so the ratio's interval is far narrower than the perplexity's."""
    rng = np.random.default_rng(0)
    hard = rng.normal(300, 60, 30)
    num_tokens = np.full(30, 100)
    ratio = perplexity_ratio(hard + 10 + rng.normal(0, 1, 30), hard, num_tokens, confidence=0.95, seed=0)
    alone = perplexity_estimate(hard, num_tokens, confidence=0.95, seed=0)
    assert ratio.value == pytest.approx(math.exp(0.1), rel=0.01)
    assert (ratio.high - ratio.low) / ratio.value < 0.05 * (alone.high - alone.low) / alone.value  # type: ignore[operator]


@given(st.lists(st.floats(1, 500), min_size=2, max_size=20), st.integers(0, 2**31))
def test_a_model_against_itself_is_exactly_one(nll: list[float], seed: int) -> None:
    values = np.array(nll)
    ratio = perplexity_ratio(values, values, np.full(len(nll), 100), confidence=0.95, seed=seed)
    assert ratio == Estimate(1.0, 1.0, 1.0)


@given(st.lists(st.floats(1, 500), min_size=2, max_size=20), st.floats(0.6, 0.99))
def test_interval_is_reproducible_and_within_the_documents(nll: list[float], confidence: float) -> None:
    values, num_tokens = np.array(nll), np.full(len(nll), 100)
    first = perplexity_estimate(values, num_tokens, confidence=confidence, seed=7)
    assert first == perplexity_estimate(values, num_tokens, confidence=confidence, seed=7)
    lowest, highest = np.exp(values.min() / 100), np.exp(values.max() / 100)
    assert lowest * (1 - 1e-9) <= first.low <= first.high <= highest * (1 + 1e-9)  # type: ignore[operator]


def test_non_inferiority_judges_the_upper_bound() -> None:
    assert is_non_inferior(Estimate(1.01, 0.99, 1.03), margin=0.04)
    assert not is_non_inferior(Estimate(1.01, 0.99, 1.05), margin=0.04)
    assert not is_non_inferior(Estimate(0.9, None, None), margin=0.04)
