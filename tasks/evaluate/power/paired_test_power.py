"""The power of the paired test of two models' scores (`tasks.evaluate.statistics.paired_differences`).

A sample's prompts differ by 1, 0 or -1. Of all prompts a share `DISCORDANT` (at least the difference itself) is answered by one
model alone, and the prompts of a sample agree with the intra-class correlation `CORRELATION`. Both are what the demo's models
show on passkeys, or a little more.

With one prompt a sample the power of McNemar's test is summed exactly. With several, few samples are simulated, and for more the
test is as powerful as a t-test of the samples' means.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tasks.evaluate.power.best_case import smallest_p

DISCORDANT = 1 / 3
CORRELATION = 0.3
_MOST_SIMULATED = 13
_TRIALS = 500


def power_of(num_samples: int, effect: float, *, prompts: int, family_size: int, confidence: float) -> float:
    """Probability that the test of one pair of models finds a true difference `effect`, in (0, 1], after Holm's correction.

    Args:
        prompts: of each sample, such as its depths.
        family_size: tests that are corrected together. The level is the one for the smallest p-value.
    """
    alpha = (1 - confidence) / family_size
    if smallest_p(num_samples, 1, is_mcnemar=prompts == 1) >= alpha:
        return 0.0
    if prompts == 1:
        return _mcnemar(num_samples, effect, alpha)
    if num_samples <= _MOST_SIMULATED:
        return float((_simulated(num_samples, effect, prompts) < alpha).mean())
    return _t_test(num_samples, effect, prompts, alpha)


def _shares(effect: float) -> tuple[float, float]:
    """Of prompts that the better and the worse model alone answers."""
    discordant = max(effect, DISCORDANT)
    return (discordant + effect) / 2, (discordant - effect) / 2


def _mcnemar(num_samples: int, effect: float, alpha: float) -> float:
    """Over all numbers of discordant samples."""
    from scipy.stats import binom

    better, worse = _shares(effect)
    discordant = np.arange(num_samples + 1)
    largest = binom.ppf(alpha / 2, discordant, 0.5) - 1  # with so few on one side the test still rejects
    toward_better = better / (better + worse)
    rejected = binom.cdf(largest, discordant, toward_better) + binom.sf(discordant - largest - 1, discordant, toward_better)
    return float((binom.pmf(discordant, num_samples, better + worse) * rejected).sum())


@lru_cache
def _simulated(num_samples: int, effect: float, prompts: int) -> np.ndarray:
    """p-values of simulated evaluations, [_TRIALS], by all sign patterns."""
    rng = np.random.default_rng(0)
    better, worse = _shares(effect)
    spread = 1 / CORRELATION - 1
    of_sample = rng.dirichlet(
        spread * np.maximum([better, worse, 1 - better - worse], 1e-9), size=(_TRIALS, num_samples)
    )  # Dirichlet-multinomial
    counts = rng.multinomial(prompts, of_sample / of_sample.sum(axis=-1, keepdims=True))
    differences = (counts[..., 0] - counts[..., 1]).astype(np.float32)
    patterns = np.arange(2 ** (num_samples - 1))[:, None] >> np.arange(num_samples) & 1
    sums = np.abs(differences @ (1 - 2 * patterns).astype(np.float32).T)
    p_values: np.ndarray = (sums >= np.abs(differences.sum(axis=1))[:, None] - 1e-3).mean(axis=1)
    return p_values


def _t_test(num_samples: int, effect: float, prompts: int, alpha: float) -> float:
    from scipy.stats import nct, t

    better, worse = _shares(effect)
    variance = (better + worse - effect**2) * (1 + (prompts - 1) * CORRELATION) / prompts
    if variance <= 0:
        return 1.0
    freedom = num_samples - 1
    return float(nct.sf(t.isf(alpha / 2, freedom), freedom, effect * math.sqrt(num_samples / variance)))
