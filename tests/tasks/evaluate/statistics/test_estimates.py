"""Intervals and tests against published examples and against theory; their coverage is in test_evaluate_simulation.py."""

import math
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.evaluate.statistics.estimates import (
    Estimate,
    bootstrap_bounds,
    is_non_inferior,
    mean_with_t_interval,
    perplexity_estimate,
    perplexity_ratio,
    wilson_bounds,
)
from tasks.evaluate.statistics.hypothesis_tests import depth_permutation_test, holm, mcnemar_exact, sign_flip_test
from tasks.evaluate.statistics.paired_differences import bounded_mean, tango_bounds
from tasks.evaluate.statistics.sampled import Sampled
from tasks.evaluate.statistics.score_estimates import mean_gain, mean_score


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_newcombe_1998_table_1(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_bounds(successes / n, n, 0.95) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0.6, 0.99))
def test_wilson_of_any_rate_is_that_of_counts_where_it_is_one(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_bounds(successes / n, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_mean_interval_equals_the_textbook() -> None:
    """1..5: mean 3, standard deviation 1.5811, t(0.975, 4) = 2.7764."""
    estimate = mean_with_t_interval([1, 2, 3, 4, 5], 0.95)
    half = 2.776445 * 1.581139 / math.sqrt(5)
    assert estimate.value == 3
    assert (estimate.low, estimate.high) == (pytest.approx(3 - half, abs=1e-5), pytest.approx(3 + half, abs=1e-5))


def test_one_value_has_no_interval() -> None:
    assert mean_with_t_interval([2.5], 0.95) == Estimate(2.5, None, None)


def test_mcnemar_is_the_sign_test_on_discordant_pairs() -> None:
    """Nine against one: 2 (1 + 10) / 2^10 = 0.0215, counted by hand."""
    assert mcnemar_exact(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar_exact(1, 9) == mcnemar_exact(9, 1)
    assert mcnemar_exact(4, 4) == 1
    assert mcnemar_exact(0, 0) == 1


def test_mcnemar_equals_statsmodels() -> None:
    """`mcnemar([[101, 121], [59, 33]], exact=True)` of statsmodels' own tests: statistic 59, p-value 4.434e-06."""
    assert mcnemar_exact(121, 59) == pytest.approx(4.434e-06, rel=1e-3)


def test_holm_equals_a_worked_example() -> None:
    """The four p-values of the Wikipedia article on Holm's method: with m = 4 the second smallest is multiplied by 3."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_raw_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= min(1, len(p_values) * p) + 1e-12 for p, a in zip(p_values, adjusted, strict=True))
    in_order = [adjusted[i] for i in sorted(range(len(p_values)), key=lambda i: p_values[i])]
    assert in_order == sorted(in_order)


def test_sign_flip_test_enumerates_all_signs() -> None:
    values = np.array([3.0, 1.0, 2.5, -0.5, 2.0, 4.0])
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((-1, 1), repeat=6)]
    exact = sum(s >= abs(values.sum()) - 1e-9 for s in sums) / len(sums)
    assert sign_flip_test(values, seed=0) == pytest.approx(exact)
    assert sign_flip_test(np.zeros(5), seed=0) == 1


def test_depth_permutation_test_agrees_with_all_orders() -> None:
    """Three samples of four depths: all 24^3 orders, taken by the two that stand at the ends."""
    matrix = np.array([[0.9, 0.1, 0.3, 0.8], [1.0, 0.4, 0.0, 0.6], [0.7, 0.2, 0.2, 0.5]])
    ends = [[row[list(order)][[0, -1]].sum() for order in permutations(range(4))] for row in matrix]
    deviations = [abs(sum(of_samples) - matrix.sum() / 2) for of_samples in product(*ends)]
    measured = abs(matrix[:, [0, -1]].sum() - matrix.sum() / 2)
    exact = np.mean(np.array(deviations) >= measured - 1e-9)
    assert depth_permutation_test(matrix, seed=0) == pytest.approx(exact, abs=3.5 * math.sqrt(exact / 5000) + 1 / 5000)
    assert depth_permutation_test(np.ones((5, 3)), seed=0) == 1


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_wilson_holds_its_rate_to_the_last_digit(rate: float) -> None:
    """A plot's bars may not be negative; by the formula alone 20 of these lengths leave the rate outside."""
    for n in range(1, 60):
        low, high = wilson_bounds(rate, n, 0.95)
        assert low <= rate <= high


def test_scores_of_independent_prompts_get_wilsons_interval() -> None:
    estimate = mean_score([Sampled(np.array([1.0, 1, 1, 1, 0]), np.arange(5))], confidence=0.95)
    assert (estimate.value, estimate.interval) == (0.8, "wilson")
    assert (estimate.low, estimate.high) == pytest.approx(wilson_bounds(4 / 5, 5, 0.95))


def test_depths_that_come_out_alike_are_one_observation() -> None:
    """Ten samples, each right at all or at none of twenty depths, tell no more than ten prompts."""
    right = np.repeat([1.0, 1, 1, 1, 1, 1, 1, 0, 0, 0], 20)
    clustered = mean_score([Sampled(right, np.repeat(np.arange(10), 20))], confidence=0.95)
    assert clustered.interval == "wilson_effective"
    assert (clustered.low, clustered.high) == pytest.approx(wilson_bounds(0.7, 10, 0.95))


def test_depths_that_disagree_are_many_observations() -> None:
    """Ten samples, each right at 3 or 4 of 5 depths in turn: less than chance, so all fifty prompts count, and a quarter more."""
    right = np.concatenate([np.arange(5) < 3 + sample % 2 for sample in range(10)]).astype(float)
    estimate = mean_score([Sampled(right, np.repeat(np.arange(10), 5))], confidence=0.95)
    assert (estimate.low, estimate.high) == pytest.approx(wilson_bounds(0.7, 62.5, 0.95))


def test_variance_of_the_mean_is_that_of_leaving_out_each_sample() -> None:
    """CR3 is the jackknife, up to the factor (n - 1) / n, about the mean of all: for unequal samples counted by hand."""
    values, samples = np.array([1.0, 0, 1, 1, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 2, 2])
    without = np.array([values[samples != s].mean() for s in range(3)])
    assert Sampled(values, samples).variance_of_mean() == pytest.approx(((without - values.mean()) ** 2).sum())


def test_one_wrong_prompt_has_no_better_bound_than_none() -> None:
    """40 of 40 and 39 of 40 prompts over eight samples: as a bootstrap beside Wilson's it was 67.6 % and 87.1 %."""
    samples = np.repeat(np.arange(8), 5)
    perfect = mean_score([Sampled(np.ones(40), samples)], confidence=0.95)
    one_wrong = mean_score([Sampled(np.where(np.arange(40) == 7, 0.0, 1.0), samples)], confidence=0.95)
    assert perfect.low == pytest.approx(0.676, abs=5e-4)
    assert one_wrong.low <= perfect.low  # type: ignore[operator]


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=8))
def test_no_score_has_better_bounds_than_an_all_right_or_an_all_wrong_one(found: list[list[int]]) -> None:
    samples = np.repeat(np.arange(len(found)), 3)

    def bounds(values: np.ndarray) -> tuple[float, float]:
        estimate = mean_score([Sampled(values, samples)], confidence=0.95)
        return estimate.low, estimate.high  # type: ignore[return-value]

    low, high = bounds(np.array(found).ravel() / 4)
    assert 0 <= low <= np.mean(found) / 4 <= high <= 1
    assert low <= bounds(np.ones(len(samples)))[0] + 1e-12
    assert high >= bounds(np.zeros(len(samples)))[1] - 1e-12


def test_samples_of_unequal_numbers_of_prompts_count_for_fewer() -> None:
    """Nine prompts of one sample and one of another: 10^2 / (9^2 + 1^2) = 1.22 samples, not two."""
    uneven = mean_score([Sampled(np.ones(10), np.array([0] * 9 + [1]))], confidence=0.95)
    assert uneven.low == pytest.approx(wilson_bounds(1.0, 100 / 82, 0.95)[0])


def test_samples_that_came_out_alike_are_as_many_trials() -> None:
    right = Sampled(np.ones(50), np.repeat(np.arange(10), 5))
    assert mean_score([right], confidence=0.95).low == pytest.approx(wilson_bounds(1.0, 10, 0.95)[0])
    difference = bounded_mean(Sampled(right.values - right.values, right.samples), confidence=0.95)
    unseen = 1.959964**2 / (10 + 1.959964**2)  # Tango's bound of no discordant pair, in closed form
    assert (difference.value, difference.low, difference.high) == (0, pytest.approx(-unseen), pytest.approx(unseen))


def test_a_loss_that_no_sample_showed_is_not_ruled_out() -> None:
    """One of ten samples better and none worse: a bootstrap gave [0, 0.1], no loss at all."""
    values = Sampled(np.array([1.0] + [0.0] * 9), np.arange(10))
    estimate = bounded_mean(values, confidence=0.95)
    assert estimate.value == 0.1
    assert estimate.low is not None
    assert estimate.low < -0.15
    mirrored = bounded_mean(Sampled(-values.values, values.samples), confidence=0.95)
    assert mirrored.high == pytest.approx(-estimate.low)


@pytest.mark.parametrize(("better", "worse", "n"), [(9, 3, 30), (1, 0, 12), (0, 4, 20), (2, 2, 8)])
def test_tango_bounds_are_where_the_score_test_of_the_likeliest_shares_refuses(better: int, worse: int, n: int) -> None:
    """Against a grid search for the share of worse pairs that is likeliest under the difference."""

    def statistic(difference: float) -> float:
        shares = np.linspace(max(0, -difference), (1 - difference) / 2, 400_001)[1:-1]
        likelihood = better * np.log(shares + difference) if better else np.zeros_like(shares)
        likelihood = likelihood + (worse * np.log(shares) if worse else 0)
        likelihood = likelihood + (n - better - worse) * np.log(1 - difference - 2 * shares)
        share = shares[np.argmax(likelihood)]
        error = math.sqrt((2 * share + difference - difference**2) / n)
        return ((better - worse) / n - difference) / error

    low, high = tango_bounds(better / n, worse / n, n, 0.95)
    assert statistic(low) == pytest.approx(1.959964, abs=2e-3)
    assert statistic(high) == pytest.approx(-1.959964, abs=2e-3)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=12), st.data())
def test_a_worse_sample_never_has_better_bounds_of_the_difference(quarters: list[int], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(quarters) - 1))
    lowered = [*quarters]
    lowered[index] = data.draw(st.integers(-4, quarters[index]))
    samples = np.arange(len(quarters))
    before = bounded_mean(Sampled(np.array(quarters) / 4, samples), confidence=0.95)
    after = bounded_mean(Sampled(np.array(lowered) / 4, samples), confidence=0.95)
    assert after.low <= before.low + 1e-9  # type: ignore[operator]
    assert after.high <= before.high + 1e-9  # type: ignore[operator]


@pytest.mark.parametrize("num_samples", [2, 4, 8])
def test_the_mean_gain_over_seven_tasks_is_covered_with_few_samples_each(num_samples: int) -> None:
    draw = np.random.default_rng(num_samples)
    truth, samples, covered = np.arange(7.0), np.arange(num_samples), 0
    for _ in range(600):
        groups = [Sampled(mean + draw.normal(size=num_samples), samples) for mean in truth]
        found = mean_gain(groups, confidence=0.95)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 3.0 <= found.high
    assert covered / 600 > 0.92  # 0.95 less three standard errors


def test_mean_over_tasks_weighs_tasks_and_not_prompts() -> None:
    many, few = Sampled(np.ones(90), np.arange(90)), Sampled(np.zeros(10), np.arange(10))
    assert mean_score([many, few], confidence=0.95).value == 0.5
    assert mean_gain([many, few], confidence=0.95) == Estimate(0.5, 0.5, 0.5)
    assert mean_gain([many, Sampled(np.full(3, np.nan), np.arange(3))], confidence=0.95) is None


def test_perplexity_weighs_tokens_and_not_documents() -> None:
    nll, num_tokens = np.array([10.0, 300.0]), np.array([10, 100])
    assert perplexity_estimate(nll, num_tokens, confidence=0.95, seed=0).value == pytest.approx(math.exp(310 / 110))


def test_bootstrap_interval_agrees_with_normal_theory_for_many_documents() -> None:
    nats = np.random.default_rng(0).normal(3, 0.5, 400)
    estimate = perplexity_estimate(nats * 128, np.full(400, 128), confidence=0.95, seed=1)
    half = 1.959964 * nats.std(ddof=1) / math.sqrt(400)
    assert math.log(estimate.low or 0) == pytest.approx(nats.mean() - half, abs=0.1 * half)
    assert math.log(estimate.high or 0) == pytest.approx(nats.mean() + half, abs=0.1 * half)


def test_few_documents_of_equal_length_have_the_textbooks_interval() -> None:
    nats = np.array([2.9, 3.2, 3.0, 3.5, 3.1])
    expected = mean_with_t_interval(nats, 0.95)
    estimate = perplexity_estimate(nats * 128, np.full(5, 128), confidence=0.95, seed=0)
    assert estimate.low == pytest.approx(math.exp(expected.low or 0))
    assert estimate.high == pytest.approx(math.exp(expected.high or 0))


def test_one_document_has_no_interval() -> None:
    one = np.array([300.0])
    assert perplexity_estimate(one, np.array([100]), confidence=0.95, seed=0) == Estimate(math.exp(3), None, None)
    assert perplexity_ratio(one, one, np.array([100]), confidence=0.95, seed=0) == Estimate(1.0, None, None)


def test_bounds_of_two_documents_that_disagree_stay_finite() -> None:
    estimate = perplexity_estimate(np.array([200.0, 1500.0]), np.array([100, 100]), confidence=0.999, seed=0)
    assert math.isfinite(estimate.high or math.inf)


def test_expanded_tail_is_hesterbergs() -> None:
    """A nominal tail of 2.5 % at n = 10 is Phi(-sqrt(10 / 9) 2.262) = 0.0085, by a table of t and of the normal distribution."""
    resampled = np.arange(100_001) / 100_000
    low, high = bootstrap_bounds(resampled, 10, 0.95)
    assert (low, high) == (pytest.approx(0.00855, abs=1e-4), pytest.approx(1 - 0.00855, abs=1e-4))


def test_ratio_is_paired() -> None:
    """What makes a document hard cancels, so the ratio's interval is far narrower than the perplexity's."""
    rng = np.random.default_rng(0)
    hard = rng.normal(300, 60, 30)
    num_tokens = np.full(30, 100)
    ratio = perplexity_ratio(hard + 10 + rng.normal(0, 1, 30), hard, num_tokens, confidence=0.95, seed=0)
    alone = perplexity_estimate(hard, num_tokens, confidence=0.95, seed=0)
    assert ratio.value == pytest.approx(math.exp(0.1), rel=0.01)
    assert (ratio.high - ratio.low) / ratio.value < 0.05 * (alone.high - alone.low) / alone.value  # type: ignore[operator]


@settings(max_examples=30)
@given(st.lists(st.floats(1, 500), min_size=2, max_size=20), st.integers(0, 2**31))
def test_a_model_against_itself_is_exactly_one(nll: list[float], seed: int) -> None:
    values = np.array(nll)
    ratio = perplexity_ratio(values, values, np.full(len(nll), 100), confidence=0.95, seed=seed)
    assert ratio == Estimate(1.0, 1.0, 1.0)


@settings(max_examples=30)
@given(st.lists(st.floats(1, 500), min_size=8, max_size=20), st.floats(0.6, 0.99))
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
