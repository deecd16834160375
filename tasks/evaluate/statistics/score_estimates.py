"""Estimates of task scores, where one sample is asked at several depths.

The prompts of a sample share haystack, needle and question, so they are one observation and not several. A mean score in
[0, 1] gets Wilson's interval over samples, whatever the scores within them. No sample's mean varies more than a single
right-or-wrong prompt of the same mean, so the interval is right where all depths of a sample score the same, and too wide
where they differ. It depends on the mean alone, so a better score never has a worse bound. A perfect score
has a lower bound of 0.9 from 35 samples on.

A mean difference, of values in [-1, 1], gets Tango's score interval of paired proportions (Tango 1998) in the same way:
differences above zero count as samples that are better, those below zero as samples that are worse. Where no sample is
better or worse, a loss is still possible: one of 5 % or more is ruled out from 73 samples on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_schemas.report_sections import Interval
from tasks.evaluate.statistics.estimates import Estimate, mean_with_t_interval, wilson_bounds

_TINY = 1e-12


@dataclass(frozen=True)
class Sampled:
    """Values of prompts and the sample that each belongs to: `values` float64 [prompts], `samples` int [prompts]."""

    values: np.ndarray
    samples: np.ndarray

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum and number of the values of each sample, [samples]."""
        _, place = np.unique(self.samples, return_inverse=True)
        return np.bincount(place, weights=self.values), np.bincount(place)

    def present(self) -> Sampled:
        """Those that are not NaN."""
        kept = ~np.isnan(self.values)
        return Sampled(self.values[kept], self.samples[kept])


@dataclass(frozen=True)
class ScoreEstimate(Estimate):
    """`interval` names the method: wilson (each sample is one prompt) or wilson_of_samples."""

    interval: Interval


def mean_score(groups: Sequence[Sampled], *, confidence: float) -> ScoreEstimate:
    """Mean over groups (tasks) of the mean score of each, scores in [0, 1]; a single group is the common case.

    G groups count as G times the fewest samples of one. As p (1 - p) is concave, Wilson's variance of the mean over groups
    is then at least the groups' own.
    """
    totals = [group.totals() for group in groups]
    value = float(np.mean([sums.sum() / counts.sum() for sums, counts in totals]))
    num_samples = len(totals) * min(_num_equal_samples(counts) for _, counts in totals)
    is_one_prompt_each = all(counts.max() == 1 for _, counts in totals)
    bounds = wilson_bounds(value, num_samples, confidence)
    return ScoreEstimate(value, *bounds, "wilson" if is_one_prompt_each else "wilson_of_samples")


def _num_equal_samples(counts: np.ndarray) -> float:
    """The effective number of samples (Kish 1965): how many with equal numbers of prompts have a mean as variable as these.

    `counts`: prompts of each sample, [samples].
    """
    return float(counts.sum() ** 2 / (counts**2).sum())


def mean_gain(groups: Sequence[Sampled], *, confidence: float) -> Estimate | None:
    """Mean over groups of the mean recall gain of each, nats, with Student's t interval over the samples' means.

    None where no prompt has a control. A group of one sample allows no interval.
    """
    present = [group.present() for group in groups]
    if not all(len(group.values) for group in present):
        return None
    totals = [group.totals() for group in present]
    if len(totals) == 1:
        return mean_with_t_interval(totals[0][0] / totals[0][1], confidence)
    value = float(np.mean([sums.sum() / counts.sum() for sums, counts in totals]))
    return Estimate(value, *_stratified_bounds([sums / counts for sums, counts in totals], value, confidence))


def mean_difference(first: Sampled, second: Sampled, *, confidence: float) -> Estimate:
    """Mean score of `first` minus that of `second` on the same prompts in the same order, scores in [0, 1]."""
    return bounded_mean(Sampled(first.values - second.values, first.samples), confidence=confidence)


def bounded_mean(values: Sampled, *, confidence: float) -> Estimate:
    """Mean of values in [-1, 1] with Tango's interval over samples."""
    sums, counts = values.totals()
    share_better, share_worse = np.maximum(sums, 0).sum() / counts.sum(), np.maximum(-sums, 0).sum() / counts.sum()
    bounds = tango_bounds(float(share_better), float(share_worse), _num_equal_samples(counts), confidence)
    return Estimate(float(sums.sum() / counts.sum()), *bounds)


def tango_bounds(share_better: float, share_worse: float, n: float, confidence: float) -> tuple[float, float]:
    """Bounds of share_better - share_worse of n pairs: where Tango's score statistic is the normal quantile (Tango 1998, equation 8).

    A pair of difference d that is not -1, 0 or 1 counts as |d| of a pair better or worse. As d^2 <= |d|, that variance is at
    least the pairs' own.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
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


def _stratified_bounds(means: Sequence[np.ndarray], value: float, confidence: float) -> tuple[float, float] | tuple[None, None]:
    """Bounds of the mean over groups, from the means of each group's samples; groups are drawn independently."""
    from scipy.stats import t

    sizes = [len(of_group) for of_group in means]
    if min(sizes) < 2:
        return None, None
    error = np.sqrt(sum(of_group.var(ddof=1) / len(of_group) for of_group in means)) / len(means)
    half = float(t.ppf((1 + confidence) / 2, sum(sizes) - len(sizes)) * error)
    return value - half, value + half
