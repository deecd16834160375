"""Intervals of what evaluation measures. Documents, not tokens, are the independent units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.evaluate.perplexity import perplexity

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value and its confidence interval; `low` and `high` are None where one sample allows none."""

    value: float
    low: float | None
    high: float | None


def wilson_rate(successes: int, n: int, confidence: float) -> Estimate:
    """A rate with Wilson's score interval (Wilson 1927), which stays within [0, 1] and works at 0 and at n."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def mean_with_t_interval(values: Sequence[float] | np.ndarray, confidence: float) -> Estimate:
    """Mean with Student's t interval; without an interval for a single value."""
    from scipy.stats import t

    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Estimate(mean, None, None)
    half = float(t.ppf((1 + confidence) / 2, len(sample) - 1)) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Estimate(mean, mean - half, mean + half)


def perplexity_estimate(nll: np.ndarray, num_tokens: np.ndarray, *, confidence: float, seed: int) -> Estimate:
    """Token-weighted perplexity with a percentile bootstrap interval over documents.

    Args:
        nll: summed negative log-likelihood of each document's targets, nats, [documents].
        num_tokens: how many targets those are, [documents].
    """
    means = _resampled_means(nll, num_tokens, seed)
    return _estimate(perplexity(nll, num_tokens), np.exp(means), confidence)


def perplexity_ratio(
    numerator_nll: np.ndarray, denominator_nll: np.ndarray, num_tokens: np.ndarray, *, confidence: float, seed: int
) -> Estimate:
    """Ratio of two perplexities over the same targets, with a paired percentile bootstrap over documents.

    Both sides are resampled with the same documents, so what makes a document hard cancels. The ratio is
    exp of the token-weighted mean difference in nats; all three arrays are [documents].
    """
    difference = numerator_nll - denominator_nll
    means = _resampled_means(difference, num_tokens, seed)
    return _estimate(float(np.exp(difference.sum() / num_tokens.sum())), np.exp(means), confidence)


def is_non_inferior(ratio: Estimate, margin: float) -> bool:
    """Whether the interval of a perplexity ratio shows a loss below `margin`: its upper bound is below 1 + margin."""
    return ratio.high is not None and ratio.high < 1 + margin


def _resampled_means(nll: np.ndarray, num_tokens: np.ndarray, seed: int) -> np.ndarray:
    """Token-weighted means of resampled documents, [RESAMPLES]; the same seed draws the same documents."""
    drawn = np.random.default_rng(seed).integers(0, len(nll), (RESAMPLES, len(nll)))
    means: np.ndarray = nll[drawn].sum(axis=1) / num_tokens[drawn].sum(axis=1)
    return means


def _estimate(value: float, resampled: np.ndarray, confidence: float) -> Estimate:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))
