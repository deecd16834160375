"""Estimates of task scores, where one sample is asked at several depths.

A mean score in [0, 1] gets Wilson's interval (Wilson 1927) on the effective number of prompts: the number of prompts over their
estimated design effect (Korn & Graubard 1998 do the same with the exact interval). Nothing varies where all prompts are right, so
each sample counts as one prompt there. No lower bound is above that of an all-right score, and no upper bound below that of an
all-wrong one, so one wrong prompt never gives a better bound than none. An all-right score has a lower bound of 0.9 from 35 samples on.

A mean difference of two models' scores is in `paired_differences`. `benchmarks/coverage.py` simulates how often the intervals hold
the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import harmonic_mean

import numpy as np

from data_schemas.report_sections import Interval
from tasks.evaluate.statistics.estimates import Estimate, mean_with_t_interval, wilson_bounds
from tasks.evaluate.statistics.sampled import Sampled


@dataclass(frozen=True)
class ScoreEstimate(Estimate):
    """`interval` names the method: wilson (each sample is one prompt) or wilson_effective (on the effective number of prompts)."""

    interval: Interval


def mean_score(groups: Sequence[Sampled], *, confidence: float) -> ScoreEstimate:
    """Mean over groups (tasks) of the mean score of each, scores in [0, 1]; a single group is the common case.

    G groups count as G times the harmonic mean of their effective numbers of prompts. As p (1 - p) is concave, Wilson's variance of the
    mean over groups is then at least the groups' own.
    """
    rates = [float(group.values.mean()) for group in groups]
    value = float(np.mean(rates))
    effective = [group.effective_prompts(rate * (1 - rate)) for group, rate in zip(groups, rates, strict=True)]
    low, high = wilson_bounds(value, len(groups) * harmonic_mean(effective), confidence)
    all_right, _ = wilson_bounds(1.0, len(groups) * min(group.num_equal_samples() for group in groups), confidence)
    is_one_prompt_each = all(group.totals()[1].max() == 1 for group in groups)
    bounds = min(low, all_right), max(high, 1 - all_right)
    return ScoreEstimate(value, *bounds, "wilson" if is_one_prompt_each else "wilson_effective")


def mean_gain(groups: Sequence[Sampled], *, confidence: float) -> Estimate | None:
    """Mean over groups of the mean recall gain of each, nats, with Student's t interval over the samples' means.

    None where no prompt has a control. A group of one sample allows no interval.
    """
    present = [group.present() for group in groups]
    if not all(len(group.values) for group in present):
        return None
    if len(present) == 1:
        return mean_with_t_interval(present[0].means(), confidence)
    value = float(np.mean([group.values.mean() for group in present]))
    return Estimate(value, *_stratified_bounds([group.means() for group in present], value, confidence))


def _stratified_bounds(means: Sequence[np.ndarray], value: float, confidence: float) -> tuple[float, float] | tuple[None, None]:
    """Bounds of the mean over groups, from the means of each group's samples; groups are drawn independently."""
    from scipy.stats import t

    sizes = [len(of_group) for of_group in means]
    if min(sizes) < 2:
        return None, None
    error = np.sqrt(sum(of_group.var(ddof=1) / len(of_group) for of_group in means)) / len(means)
    half = float(t.ppf((1 + confidence) / 2, sum(sizes) - len(sizes)) * error)
    return value - half, value + half
