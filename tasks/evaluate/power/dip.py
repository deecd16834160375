"""How many samples find a dip in the middle of the recall-by-position curve, at the length that is served.

The dip is the mean of both ends minus that of the depths between, as `tasks.evaluate.statistics.lost_in_the_middle` tests it. Every
sample is asked at every depth. The case that needs most samples is assumed: scores near one half, which vary most, and depths of a
sample that do not agree more than those of different samples. Then a sample's dip has the variance

    1/4 · (1/2 + 1 / (depths - 2))

and the number of samples follows from the normal distribution at 80 % power.
"""

from __future__ import annotations

import math

from data_schemas.report import EvaluationSettings
from tasks.evaluate.power.sample_size import POWER, WITHOUT_DEPTHS
from tasks.evaluate.statistics.estimates import normal_quantile
from tasks.evaluate.statistics.lost_in_the_middle import MIN_DEPTHS

DIP = 0.1  # 10 points
_LARGEST_VARIANCE = 0.25  # of a score that is 0 or 1


def samples_to_find_dip(dip: float, *, depths: int, family_size: int, confidence: float) -> int:
    """The fewest samples that find a dip, a share above 0, with 80 % power after Holm's correction over `family_size` tests."""
    return math.ceil(_quantiles(family_size, confidence) ** 2 * _variance(depths) / dip**2)


def detectable_dip(num_samples: int, *, depths: int, family_size: int, confidence: float) -> float:
    """The smallest dip, as a share, that so many samples find with 80 % power. Above 1: none."""
    return _quantiles(family_size, confidence) * math.sqrt(_variance(depths) / num_samples)


def dip_line(settings: EvaluationSettings) -> str | None:
    """What this evaluation's curve can show, in one sentence; None where no task is asked by depth."""
    lengths = {task: lengths for task, lengths in settings.task_lengths.items() if task not in WITHOUT_DEPTHS and lengths}
    if not lengths or settings.num_samples is None:
        return None
    name, depths = "recall by position", settings.num_depths or 1
    if depths < MIN_DEPTHS:
        return f"{name}: {depths} depths show no dip in the middle; at least {MIN_DEPTHS} are needed (evaluation.num_depths)"
    longest = max(max(of_task) for of_task in lengths.values())
    tests = {"depths": depths, "family_size": sum(len(set(of_task)) for of_task in lengths.values())}
    smallest = detectable_dip(settings.num_samples, confidence=settings.confidence, **tests)
    needed = samples_to_find_dip(DIP, confidence=settings.confidence, **tests)
    found = f"dips from {math.ceil(100 * smallest)} points" if smallest <= 1 else "no dip"
    served = (
        ""
        if longest >= settings.target_length
        else f"; the served length of {settings.target_length} is not measured: add it to evaluation.task_lengths"
    )
    return (
        f"{name} at {longest} tokens: {settings.num_samples} samples at {depths} depths find {found} in the middle (80 % power, Holm over "
        f"{tests['family_size']} tests); {100 * DIP:g} points need {needed} samples{served}"
    )


def _quantiles(family_size: int, confidence: float) -> float:
    """Of the two-sided level of the smallest p-value, and of the power."""
    level = 1 - (1 - confidence) / family_size
    return normal_quantile(level) + normal_quantile(2 * POWER - 1)


def _variance(depths: int) -> float:
    return _LARGEST_VARIANCE * (1 / 2 + 1 / (depths - 2))
