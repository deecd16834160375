"""What intervals and tests promise, counted over simulated evaluations, and simulated models of known behaviour.

A count of N trials of probability p may be off by 3.5 standard deviations of the binomial before a test fails, and an
interval may cover up to `SLACK` less than it says, since a bootstrap is exact only in the limit.
"""

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.coverage import correlated_differences, correlated_scores, difference_coverage, score_coverage
from data_schemas.report import Report
from data_schemas.report_sections import EffectiveLength
from tasks.evaluate.report.build import build_report
from tasks.evaluate.sample_set import Samples
from tasks.evaluate.statistics.estimates import perplexity_estimate, perplexity_ratio, wilson_bounds
from tasks.evaluate.statistics.hypothesis_tests import depth_permutation_test, holm, mcnemar_exact, sign_flip_test
from tasks.evaluate.statistics.lost_in_the_middle import u_shape_indices
from tasks.evaluate.statistics.paired_differences import PairedDifference, bounded_mean, tango_bounds
from tasks.evaluate.statistics.sampled import Sampled
from tests.tasks.evaluation_rows import changed_settings, coin, perplexity_table, task_table

SLACK = 0.02
TRIALS = 300


def least(probability: float, trials: int = TRIALS, slack: float = SLACK) -> float:
    """The smallest share that chance lets pass for `probability`."""
    p = probability - slack
    return p - 3.5 * math.sqrt(p * (1 - p) / trials)


def most(probability: float, trials: int = TRIALS) -> float:
    return probability + 3.5 * math.sqrt(probability * (1 - probability) / trials)


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9])
def test_wilson_covers(rate: float) -> None:
    drawn = np.random.default_rng(0).binomial(40, rate, TRIALS)
    intervals = {k: wilson_bounds(k / 40, 40, 0.95) for k in set(drawn.tolist())}
    covered = sum(intervals[k][0] <= rate <= intervals[k][1] for k in drawn.tolist())
    assert covered / TRIALS >= least(0.95)


@pytest.mark.parametrize(("samples", "correlation"), [(8, 0.0), (8, 0.9), (16, 0.6), (35, 0.3)])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.95])
def test_scores_cover_whatever_the_correlation_within_a_sample(samples: int, correlation: float, rate: float) -> None:
    """Five depths a sample. `benchmarks/results/evaluation-coverage.json` has the whole grid, from more trials."""
    scores = correlated_scores(samples, 5, rate, correlation, TRIALS, np.random.default_rng(1))
    share = score_coverage(scores, rate)
    assert least(0.95) <= share
    assert share <= most(0.98)


@pytest.mark.parametrize(("samples", "correlation"), [(8, 0.3), (16, 0.9), (35, 0.6)])
@pytest.mark.parametrize("shares", [(0.0, 0.05), (0.1, 0.1), (0.4, 0.05)])
def test_differences_cover_whatever_the_correlation_within_a_sample(
    samples: int, correlation: float, shares: tuple[float, float]
) -> None:
    differences = correlated_differences(samples, 5, shares, correlation, TRIALS, np.random.default_rng(2))
    assert difference_coverage(differences, shares[0] - shares[1]) >= least(0.95)


def test_samples_that_all_point_one_way_show_a_difference() -> None:
    """35 points over 8 samples, p = 0.0078: with each sample as one observation it was [-9, 67], neither shown."""
    right = np.concatenate([np.arange(5) < k for k in (1, 2, 2, 2, 1, 3, 2, 1)]).astype(float)
    first, second = (Sampled(values, np.repeat(np.arange(8), 5)) for values in (right, np.zeros(40)))
    difference = PairedDifference.of(first, second, seed=0)
    assert difference.p_value == pytest.approx(2 / 2**8)
    estimate = difference.interval(0.95)
    assert estimate.value == pytest.approx(0.35)
    assert estimate.low is not None
    assert estimate.low > 0.1


def test_fractional_scores_cover() -> None:
    """Twenty samples that ask for four golds each, of which a sample finds 0.8 on average, some samples more than others."""
    rng = np.random.default_rng(11)
    scores = rng.binomial(4, rng.beta(4, 1, (TRIALS, 20, 1))) / 4
    assert score_coverage(scores, 0.8) >= least(0.95)


def test_wilson_over_correlated_prompts_would_not_cover() -> None:
    """Why depths are not counted as prompts: with strong correlation the naive interval misses far too often."""
    rng = np.random.default_rng(2)
    right = 5 * rng.binomial(16, 0.7, TRIALS)  # all five depths of a sample come out alike
    naive = [wilson_bounds(k / 80, 80, 0.95) for k in right]
    assert sum(low <= 0.7 <= high for low, high in naive) / TRIALS < 0.8


@pytest.mark.parametrize(("documents", "fewest_tokens"), [(2, 128), (2, 32), (3, 128), (3, 32), (5, 128), (10, 128), (40, 128)])
def test_perplexity_and_its_paired_ratio_cover(documents: int, fewest_tokens: int) -> None:
    rng = np.random.default_rng(3)
    num_tokens = rng.integers(fewest_tokens, 129, documents)
    alone = paired = 0
    for trial in range(TRIALS):
        hard = rng.normal(3, 0.5, documents) * num_tokens
        change = rng.normal(0.1, 0.05, documents) * num_tokens
        one = perplexity_estimate(hard, num_tokens, confidence=0.95, seed=trial)
        ratio = perplexity_ratio(hard + change, hard, num_tokens, confidence=0.95, seed=trial)
        alone += one.low <= math.exp(3) <= one.high  # type: ignore[operator]
        paired += ratio.low <= math.exp(0.1) <= ratio.high  # type: ignore[operator]
    assert alone / TRIALS >= least(0.95)
    assert paired / TRIALS >= least(0.95)


def test_paired_differences_of_scores_cover() -> None:
    rng = np.random.default_rng(4)
    samples = np.repeat(np.arange(30), 3)
    covered = 0
    for _ in range(TRIALS):
        ease = np.repeat(rng.random(30), 3)
        first = (rng.random(90) < 0.2 + 0.7 * ease).astype(float)
        second = (rng.random(90) < 0.7 * ease).astype(float)
        estimate = bounded_mean(Sampled(first - second, samples), confidence=0.95)
        covered += estimate.low <= 0.2 <= estimate.high  # type: ignore[operator]
    assert covered / TRIALS >= least(0.95)


@pytest.mark.parametrize("samples", [8, 20, 40])
@pytest.mark.parametrize("margin", [0.05, 0.2])
def test_a_loss_at_the_margin_is_seldom_called_none(samples: int, margin: float) -> None:
    """Models that lose `margin` in truth: at 95 % at most 2.5 % may pass, by Tango's interval at most 3.5 %.

    The second model is better on as many further samples as it is worse on.
    """
    rng = np.random.default_rng(12)
    trials = 2000
    for further in (0.0, 0.1, 0.3):
        drawn = rng.multinomial(samples, [further, margin + further, 1 - margin - 2 * further], trials)[:, :2]
        low = {pair: tango_bounds(pair[0] / samples, pair[1] / samples, samples, 0.95)[0] for pair in set(map(tuple, drawn))}
        assert np.mean([low[tuple(pair)] > -margin for pair in drawn]) <= most(0.035, trials)


def test_a_rare_total_failure_under_mild_noise_is_seldom_called_none() -> None:
    """A sample in twenty fails at all five depths, the others differ at one depth either way: a bootstrap is blind to the few."""
    rng = np.random.default_rng(13)
    called = 0
    for _ in range(TRIALS):
        noise = rng.choice([-0.2, 0.0, 0.2], 20)
        estimate = bounded_mean(Sampled(np.where(rng.random(20) < 0.05, -1.0, noise), np.arange(20)), confidence=0.95)
        called += estimate.low > -0.05  # type: ignore[operator]
    assert called / TRIALS <= most(0.025)


def test_holm_holds_the_family_wise_error_under_the_null() -> None:
    """Twelve McNemar tests of two equal models: at least one finding in no more than five of a hundred families."""
    rng = np.random.default_rng(5)
    families = 1000
    any_raw = any_adjusted = 0
    p_value = [mcnemar_exact(k, 60 - k) for k in range(61)]
    for _ in range(families):
        p_values = [p_value[k] for k in rng.binomial(60, 0.5, 12)]
        any_raw += min(p_values) <= 0.05
        any_adjusted += min(holm(p_values)) <= 0.05
    assert any_adjusted / families <= most(0.05, families)
    assert any_raw / families > 0.2, "uncorrected tests would find something far too often"


@pytest.mark.slow
def test_permutation_test_keeps_its_level_and_has_power() -> None:
    rng = np.random.default_rng(6)
    null = [sign_flip_test(rng.normal(0, 1, 10), seed) <= 0.05 for seed in range(TRIALS)]
    assert np.mean(null) <= most(0.05)
    assert np.mean(null) >= 0.05 - 3.5 * math.sqrt(0.05 * 0.95 / TRIALS)
    assert np.mean([sign_flip_test(rng.normal(1.5, 1, 10), seed) <= 0.05 for seed in range(50)]) > 0.9


@pytest.mark.parametrize(("samples", "accuracy", "depths"), [(40, 0.98, 21), (20, 0.5, 5)])
@pytest.mark.slow
def test_depth_permutation_test_keeps_its_level(samples: int, accuracy: float, depths: int) -> None:
    """Depths that make no difference, of samples of which some are harder."""
    rng = np.random.default_rng(14)
    of_sample = rng.beta(10 * accuracy, 10 * (1 - accuracy), (TRIALS, samples, 1))
    right = (rng.random((TRIALS, samples, depths)) < of_sample).astype(float)
    assert np.mean([depth_permutation_test(matrix, trial) <= 0.05 for trial, matrix in enumerate(right)]) <= most(0.05)


@pytest.mark.slow
def test_flipping_signs_of_depths_would_not_keep_its_level() -> None:
    """Why depths are permuted: at 98 % over 21 depths most samples have an index a little above zero, a few one far below."""
    rng = np.random.default_rng(15)
    right = (rng.random((TRIALS, 40, 21)) < 0.98).astype(float)
    flipped = [sign_flip_test(np.round(u_shape_indices(matrix), 12), trial) <= 0.05 for trial, matrix in enumerate(right)]
    assert np.mean(flipped) > most(0.05)


def test_depth_permutation_test_has_power() -> None:
    rng = np.random.default_rng(16)
    rates = np.array([0.95, 0.8, 0.7, 0.8, 0.95])
    found = [depth_permutation_test((rng.random((40, 5)) < rates).astype(float), trial) <= 0.05 for trial in range(50)]
    assert np.mean(found) > 0.8


LENGTHS = (256, 512, 1024, 2048, 4096)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def evaluated(score: Any, **kwargs: Any) -> Report:
    """The report of simulated models with `score`, 40 samples a cell."""
    table = task_table(score, arms=("base", "fine_tuned"), lengths=LENGTHS, depths=DEPTHS, num_samples=40, **kwargs)
    return build_report(Samples.of(task=table), changed_settings(target_length=4096))


@pytest.mark.parametrize("reach", [512, 1024, 2048, 4096])
def test_perfect_recall_up_to_a_length_is_that_effective_length(reach: int) -> None:
    report = evaluated(lambda arm, task, n, depth, s: float(n <= (512 if arm == "base" else reach)))
    (passkey,) = report.effective_context_length.task_scores.tasks
    expected = EffectiveLength(value=reach, lower=reach, upper=reach, longest_measured=4096)
    assert passkey.arms["fine_tuned"] == expected
    assert passkey.arms["base"] == EffectiveLength(value=512, lower=512, upper=512, longest_measured=4096)
    for row in report.lost_in_the_middle:
        assert (row.score.index, row.score.p_value) == (0, 1), "recall is the same at all depths"


def test_a_model_that_sees_the_last_512_tokens_has_a_step_in_depth() -> None:
    """The needle is seen when it is within the last 512 of n tokens, so only its last depths count in longer prompts."""
    report = evaluated(lambda arm, task, n, depth, s: float((1 - depth) * n <= 512))
    (passkey,) = report.effective_context_length.task_scores.tasks
    assert passkey.arms["fine_tuned"].value == passkey.arms["fine_tuned"].upper == 512
    curve = {(r.length, r.depth): r.accuracy for r in report.tasks if r.arm == "fine_tuned"}
    assert [curve[1024, d] for d in DEPTHS] == [0, 0, 1, 1, 1]
    assert [curve[4096, d] for d in DEPTHS] == [0, 0, 0, 0, 1]
    row = next(r for r in report.lost_in_the_middle if r.length == 4096)
    assert row.score.first_minus_middle == 0, "one end alone"
    assert row.score.last_minus_middle == 1


def test_first_and_last_quarter_only_is_a_significant_u() -> None:
    report = evaluated(lambda arm, task, n, depth, s: float(n <= 512 or depth < 0.25 or depth > 0.75))
    rows = {r.length: r.score for r in report.lost_in_the_middle if r.arm == "fine_tuned"}
    assert [rows[n].index for n in LENGTHS] == [0, 0, 1, 1, 1]
    assert all(rows[n].p_holm < 0.01 and rows[n].low > 0.8 for n in (1024, 2048, 4096))
    assert all(rows[n].p_holm == 1 for n in (256, 512))
    assert rows[4096].first_minus_middle == rows[4096].last_minus_middle == 1


def test_chance_at_all_depths_is_no_significant_u() -> None:
    report = evaluated(lambda *what: float(coin(0, *what) < 0.6))
    assert min(row.score.p_holm for row in report.lost_in_the_middle) > 0.05


def test_a_base_that_cannot_answer_is_judged_by_recall_gain() -> None:
    def gain(arm: str, task: str, n: int, depth: float | None, s: int) -> float:
        return (3.0 if n <= (512 if arm == "base" else 2048) else 0.2) + coin(1, arm, n, depth, s) / 10

    report = evaluated(lambda *_: 0.0, gain=gain)
    (passkey,) = report.effective_context_length.task_scores.tasks
    assert passkey.measure == "gain"
    assert passkey.reason is not None
    assert "base answers 0%" in passkey.reason
    assert passkey.arms["fine_tuned"] == EffectiveLength(value=2048, lower=2048, upper=2048, longest_measured=4096)
    without = evaluated(lambda *_: 0.0, gain=None)
    (passkey,) = without.effective_context_length.task_scores.tasks
    assert (passkey.measure, passkey.arms) == (None, {})


def test_perplexity_that_falls_up_to_a_length_is_that_effective_length() -> None:
    """Fine-tuned falls to 2048 and rises beyond; between estimate and bounds stands what documents disagree about."""

    def nats(arm: str, n: int, document: int) -> float:
        level = {256: 3.05, 512: 3.0, 1024: 2.95, 2048: 2.9, 4096: 3.3}[n]
        disagreed = 0.3 * (coin(2, n, document) - 0.45) if n == 1024 else 0.0
        return level + document / 20 + (disagreed + 0.04 if n == 1024 and arm == "fine_tuned" else 0.0)

    table = perplexity_table(nats, ("base", "fine_tuned"), LENGTHS, 20)
    report = build_report(Samples.of(perplexity=table), changed_settings(target_length=4096))
    section = report.effective_context_length
    assert section.perplexity.arms["base"] == EffectiveLength(value=2048, lower=2048, upper=2048, longest_measured=4096)
    unsure = section.perplexity.arms["fine_tuned"]
    assert (unsure.lower, unsure.upper) == (512, 2048)
    assert section.arms["base"] == section.within_margin.arms["base"].lower == 2048
