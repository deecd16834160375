"""Tests of paired measurements, and the correction of many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERMUTATIONS = 4999
_SIGN_PATTERNS = 2**13


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test, whose null is that discordant pairs favour either model with probability 1/2.

    Args:
        only_first: pairs that the first model alone got right.
        only_second: pairs that the second model alone got right.
    """
    from scipy.stats import binomtest

    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family (Holm 1979), in the given order; they control the family-wise error under any dependence."""
    m = len(p_values)
    adjusted = [0.0] * m
    highest = 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level that Holm's method tests each of one family at, so that p is below it exactly where Holm's p is below `alpha`.

    The smallest p-value is tested at alpha / m, the next at alpha / (m - 1) and so on. After the first that is not rejected, no
    further one is.
    """
    m = len(p_values)
    levels = [0.0] * m
    highest = 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        highest = max(highest, (m - rank) * p_values[index])
        levels[index] = alpha * p_values[index] / highest if highest > 0 else alpha / (m - rank)
    return levels


def smallest_sign_flip_p(num_samples: int, *, is_mcnemar: bool = False) -> float:
    """The p-value of `sign_flip_test`, or of McNemar's exact test, if all samples favour the same model alike."""
    exact = min(1.0, 2.0 ** (1 - num_samples))
    return exact if is_mcnemar or 2**num_samples <= _SIGN_PATTERNS else max(exact, 2 / (_SIGN_PATTERNS + 1))


def sign_flip_test(values: np.ndarray, seed: int) -> float:
    """Two-sided p-value of the mean of [samples] values; the null is that they are symmetric about zero, like paired differences.

    Exact up to thirteen samples, by 8192 random sign patterns beyond.
    """
    from scipy.stats import permutation_test

    if not np.any(values) or len(values) < 2:  # one value's sign is as likely either way
        return 1.0
    result = permutation_test(
        (np.asarray(values, np.float64),),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_SIGN_PATTERNS,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def depth_permutation_test(matrix: np.ndarray, seed: int) -> float:
    """Two-sided p-value of the mean over samples of (ends minus middle); the null is that a sample's depths are exchangeable.

    Each of 4999 draws puts the values of every sample at its depths in random order. For the statistic that is a random pair at
    the ends. The measured order counts as one more draw (Phipson & Smyth 2010), so p is at least 1 / 5000.

    Args:
        matrix: [samples, depths], at least three depths, ascending.
    """
    samples, depths = matrix.shape
    rng = np.random.default_rng(seed)
    first = rng.integers(0, depths, (PERMUTATIONS, samples))
    last = rng.integers(0, depths - 1, (PERMUTATIONS, samples))
    last += last >= first
    row = np.arange(samples)
    # ends / 2 - (all - ends) / (depths - 2), whose order over draws is that of the sum of ends, as `all` stays
    share_of_ends = 2 * matrix.sum() / depths
    drawn = np.abs((matrix[row, first] + matrix[row, last]).sum(axis=1) - share_of_ends)
    measured = abs((matrix[:, 0] + matrix[:, -1]).sum() - share_of_ends)
    at_least = drawn >= measured - 1e-9 * max(1.0, measured)
    return float((1 + at_least.sum()) / (1 + PERMUTATIONS))
