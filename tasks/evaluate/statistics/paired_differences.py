"""Mean differences of two models' scores on the same prompts: an exact test and an interval that never contradicts it.

The test flips signs of the samples' mean differences (`sign_flip_test`). With one right-or-wrong prompt a sample that is
McNemar's exact test. The interval is Tango's score interval of paired proportions (Tango 1998) on the effective number of prompts
(`tasks.evaluate.statistics.sampled`): a difference d counts as |d| of a prompt better or worse.

Few samples can make the two disagree about zero. The test is exact, so it decides: the bound next to zero becomes that of the
test-based interval (Miettinen 1976), difference * (1 - z / z_p), with z the quantile of the level and z_p that of the p-value. It excludes
zero exactly where p is below 1 - confidence.

Nothing differs where no prompt is better or worse. Each sample then counts as one prompt, and a loss is still possible: one of 5 %
or more is ruled out from 73 samples on. Without a single better prompt no bound of a loss is better than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tasks.evaluate.statistics.estimates import Estimate, normal_quantile
from tasks.evaluate.statistics.hypothesis_tests import mcnemar_exact, sign_flip_test
from tasks.evaluate.statistics.sampled import Sampled

_TINY = 1e-12


@dataclass(frozen=True)
class PairedDifference:
    """The differences of two models' scores on the same prompts, in [-1, 1], and the p-value of no difference."""

    differences: Sampled
    p_value: float

    @classmethod
    def of(cls, first: Sampled, second: Sampled, *, seed: int) -> PairedDifference:
        """First minus second, on the same prompts in the same order."""
        differences = Sampled(first.values - second.values, first.samples)
        return cls(differences, no_difference_test(differences, seed))

    def interval(self, confidence: float) -> Estimate:
        """The mean difference, with bounds that exclude zero exactly where the p-value is below 1 - confidence."""
        return agreeing(bounded_mean(self.differences, confidence=confidence), self.p_value, confidence)


def is_mcnemar(differences: Sampled) -> bool:
    """Whether each sample is one prompt that a model answers right or wrong, so that the test is McNemar's."""
    sums, counts = differences.totals()
    return bool(counts.max() == 1 and np.isin(sums, (-1.0, 0.0, 1.0)).all())


def no_difference_test(differences: Sampled, seed: int) -> float:
    """Two-sided p-value of the mean of `differences`; the null is that each sample's are as likely with the other sign."""
    sums, _ = differences.totals()
    if is_mcnemar(differences):
        return mcnemar_exact(int((sums > 0).sum()), int((sums < 0).sum()))
    sums = np.where(np.abs(sums) < _TINY, 0.0, sums)
    return sign_flip_test(sums, seed)


def agreeing(estimate: Estimate, p_value: float, confidence: float) -> Estimate:
    """`estimate` with the bound next to zero moved where it contradicts the test; the test rejects where p < 1 - confidence."""
    from scipy.stats import norm

    if estimate.low is None or estimate.high is None:
        return estimate
    is_rejected = p_value < 1 - confidence
    if is_rejected == (estimate.low > 0 or estimate.high < 0):
        return estimate
    z, z_p = float(norm.isf((1 - confidence) / 2)), float(norm.isf(p_value / 2))
    toward_zero = max(1 - z / max(z_p, _TINY), -1.0)
    bound = estimate.value * (max(toward_zero, _TINY) if is_rejected else min(toward_zero, 0.0))
    if estimate.value > 0:
        return Estimate(estimate.value, bound, estimate.high)
    return Estimate(estimate.value, estimate.low, bound)


def bounded_mean(values: Sampled, *, confidence: float) -> Estimate:
    """Mean of values in [-1, 1] with Tango's interval on the effective number of prompts."""
    better, worse = float(np.maximum(values.values, 0).mean()), float(np.maximum(-values.values, 0).mean())
    value = float(values.values.mean())
    low, high = tango_bounds(better, worse, values.effective_prompts(better + worse - value * value), confidence)
    samples = values.num_equal_samples()
    no_loss, _ = tango_bounds(0.0, 0.0, samples, confidence)
    all_better, _ = tango_bounds(1.0, 0.0, samples, confidence)
    low = min(low, all_better, no_loss if better < _TINY else low)
    high = max(high, -all_better, -no_loss if worse < _TINY else high)
    return Estimate(value, low, high)


def tango_bounds(share_better: float, share_worse: float, n: float, confidence: float) -> tuple[float, float]:
    """Bounds of share_better - share_worse of n pairs: where Tango's score statistic is the normal quantile (Tango 1998, equation 8).

    A pair of difference d that is not -1, 0 or 1 counts as |d| of a pair better or worse. As d^2 <= |d|, that variance is at
    least the pairs' own.
    """
    z = normal_quantile(confidence)
    return _tango_lower(share_better, share_worse, n, z), -_tango_lower(share_worse, share_better, n, z)


def _tango_lower(share_better: float, share_worse: float, n: float, z: float) -> float:
    """The smallest difference that the score test does not reject, by bisection."""
    low, high = -1.0, share_better - share_worse
    while high - low > _TINY:
        difference = (low + high) / 2
        is_rejected = share_better - share_worse - difference > z * _tango_error(share_better, share_worse, n, difference)
        low, high = (difference, high) if is_rejected else (low, difference)
    return high


def _tango_error(share_better: float, share_worse: float, n: float, difference: float) -> float:
    """Standard error of the observed difference if `difference` is the true one, at the likeliest share of worse pairs."""
    linear = -share_better - share_worse + (2 - share_better + share_worse) * difference
    constant = -share_worse * difference * (1 - difference)
    worse = (math.sqrt(max(0.0, linear * linear - 8 * constant)) - linear) / 4
    return math.sqrt(max(0.0, 2 * worse + difference * (1 - difference)) / n)
