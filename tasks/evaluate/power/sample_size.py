"""How many samples find a difference of two models' scores, and which difference a number of samples finds."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from data_schemas.evaluation_params import EvaluationParams
from tasks.evaluate.power.paired_test_power import power_of

POWER = 0.8
_MOST_SAMPLES = 100_000
_WHERE_NONE_FINDS_IT = 100  # such as at a confidence of 0.9999
# A sample is one prompt: the gold is spread over the prompt, or each distance has samples of its own.
WITHOUT_DEPTHS = frozenset({"variable_tracking", "common_words", "frequent_words", "graph_walk", "spaced_evidence"})


def prompts_a_sample(tasks: Collection[str], num_depths: int | None) -> int:
    """The fewest of any of the tasks."""
    return 1 if set(tasks) & WITHOUT_DEPTHS else num_depths or 1


@lru_cache
def samples_to_find(effect: float, *, prompts: int, family_size: int, confidence: float) -> int | None:
    """The fewest samples that find `effect`, a share above 0, with 80 % power; None where no number does.

    Args:
        prompts: of each sample, such as its depths.
        family_size: tests that Holm's correction takes together.
    """

    def finds(num_samples: int) -> bool:
        power = power_of(num_samples, effect, prompts=prompts, family_size=family_size, confidence=confidence)
        return power >= POWER

    most = 1
    while not finds(most):
        if most > _MOST_SAMPLES:
            return None
        most *= 2
    least = most // 2
    while most - least > 1:
        middle = (most + least) // 2
        least, most = (least, middle) if finds(middle) else (middle, most)
    return most


@lru_cache
def detectable(num_samples: int, *, prompts: int, family_size: int, confidence: float) -> float | None:
    """The smallest difference in whole percentage points, as a share, that is found with 80 % power; None: not even 100 points."""

    def finds(points: int) -> bool:
        power = power_of(num_samples, points / 100, prompts=prompts, family_size=family_size, confidence=confidence)
        return power >= POWER

    least, most = 0, 100
    if not finds(most):
        return None
    while most - least > 1:
        middle = (most + least) // 2
        least, most = (least, middle) if finds(middle) else (middle, most)
    return most / 100


def chosen_samples(evaluation: EvaluationParams) -> int:
    """evaluation.num_samples; where it is empty, as many as find evaluation.detectable_effect in the primary comparison of all tasks."""
    if evaluation.num_samples is not None:
        return evaluation.num_samples
    tasks = tuple(dict.fromkeys(evaluation.tasks))
    found = samples_to_find(
        evaluation.detectable_effect / 100,
        prompts=prompts_a_sample(tasks, evaluation.num_depths),
        family_size=max(1, len(tasks)),
        confidence=evaluation.confidence,
    )
    return found or _WHERE_NONE_FINDS_IT
