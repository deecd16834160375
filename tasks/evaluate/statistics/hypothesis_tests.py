"""Tests of paired measurements, and the correction of many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERMUTATIONS = 4999


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


def sign_flip_test(values: np.ndarray, seed: int) -> float:
    """Two-sided p-value of the mean of [samples] values; the null is that they are symmetric about zero, like paired differences.

    Exact up to twelve samples, by 4999 random sign patterns beyond.
    """
    from scipy.stats import permutation_test

    if not np.any(values) or len(values) < 2:  # one value's sign is as likely either way
        return 1.0
    result = permutation_test(
        (np.asarray(values, np.float64),),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
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
