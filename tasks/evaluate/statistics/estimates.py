"""Estimates with intervals. Documents and samples, not tokens and not depths, are the independent units.

Bootstrap intervals are percentile intervals, expanded for small samples as Hesterberg 2014 (arXiv 1411.5279) advises: a
plain percentile interval is too narrow, by the ratio of Student's t to the normal quantile and by that of n to n - 1. Fewer
than eight documents have too few different resamples: they get Student's t interval of the log-ratio with its jackknife
error. One document gets no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tasks.evaluate.perplexity import perplexity

RESAMPLES = 2000
FEWEST_FOR_BOOTSTRAP = 8
# Two documents that disagree by nats, at a level near 1, give bounds beyond what a float or JSON holds.
_LARGEST_LOG = 700.0


@dataclass(frozen=True)
class Estimate:
    """A value and its confidence interval; `low` and `high` are None where one sample allows none."""

    value: float
    low: float | None
    high: float | None


@lru_cache
def normal_quantile(confidence: float) -> float:
    """Of the two-sided level, such as 1.96 for 0.95."""
    from scipy.stats import norm

    return float(norm.ppf((1 + confidence) / 2))


def wilson_bounds(rate: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) around any rate in [0, 1] of n observations; it need not be a count of successes.

    The rate lies in it, also where rounding would leave it outside by its last digit, as at 0 and 1.
    """
    z = normal_quantile(confidence)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


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
    """Token-weighted perplexity with an interval over documents, none for a single one.

    Args:
        nll: summed negative log-likelihood of each document's targets, nats, [documents].
        num_tokens: how many targets those are, [documents].
    """
    return Estimate(perplexity(nll, num_tokens), *_exponential_bounds(nll, num_tokens, confidence, seed))


def perplexity_ratio(
    numerator_nll: np.ndarray, denominator_nll: np.ndarray, num_tokens: np.ndarray, *, confidence: float, seed: int
) -> Estimate:
    """Ratio of two perplexities over the same targets, with an interval paired over documents, none for a single one.

    Both sides are of the same documents, so the difficulty of a document cancels. The ratio is
    exp of the token-weighted mean difference in nats; all three arrays are [documents].
    """
    difference = numerator_nll - denominator_nll
    bounds = _exponential_bounds(difference, num_tokens, confidence, seed)
    return Estimate(float(np.exp(difference.sum() / num_tokens.sum())), *bounds)


def is_non_inferior(ratio: Estimate, margin: float) -> bool:
    """Whether the interval of a perplexity ratio shows a loss below `margin`: its upper bound is below 1 + margin."""
    return ratio.high is not None and ratio.high < 1 + margin


def _exponential_bounds(
    nats: np.ndarray, num_tokens: np.ndarray, confidence: float, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """Bounds of exp(sum of nats / sum of tokens) over documents, both [documents]."""
    if len(nats) < 2:
        return None, None
    if len(nats) < FEWEST_FOR_BOOTSTRAP:
        low, high = _jackknife_t_bounds(nats, num_tokens, confidence)
    else:
        low, high = bootstrap_bounds(resampled_ratios(nats, num_tokens, seed), len(nats), confidence)
    return math.exp(low), math.exp(min(high, _LARGEST_LOG))


def _jackknife_t_bounds(numerators: np.ndarray, denominators: np.ndarray, confidence: float) -> tuple[float, float]:
    """Student's t interval of a ratio of sums over n >= 2 units, n - 1 degrees of freedom.

    The error comes from the ratios that leave out one unit each (Efron & Stein 1981). For equal denominators it is the textbook
    error; for unequal ones it has no bias of the delta method.
    """
    from scipy.stats import t

    n, ratio = len(numerators), numerators.sum() / denominators.sum()
    without_each = (numerators.sum() - numerators) / (denominators.sum() - denominators)
    error = math.sqrt((n - 1) / n * ((without_each - ratio) ** 2).sum())
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * error
    return float(ratio) - half, float(ratio) + half


def resampled_ratios(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> np.ndarray:
    """Sum of numerators over sum of denominators of resampled units, [RESAMPLES]; the same seed draws the same units."""
    drawn = np.random.default_rng(seed).integers(0, len(numerators), (RESAMPLES, len(numerators)))
    ratios: np.ndarray = numerators[drawn].sum(axis=1) / denominators[drawn].sum(axis=1)
    return ratios


def bootstrap_bounds(resampled: np.ndarray, num_units: int, confidence: float) -> tuple[float, float]:
    """The expanded percentile interval of `resampled` statistics of `num_units`, at least 2, independent units.

    The tail is Phi(-sqrt(n / (n - 1)) t), t being Student's quantile with n - 1 degrees of freedom.
    """
    from scipy.stats import norm, t

    quantile = t.ppf((1 + confidence) / 2, num_units - 1) * math.sqrt(num_units / (num_units - 1))
    tail = float(norm.cdf(-quantile))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)
