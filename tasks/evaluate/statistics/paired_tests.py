"""Paired tests: which of two models scores higher on the same samples?

The unit of a test is the sample: all its depths count together (`tasks.evaluate.statistics.paired_differences`). A p-value over
single prompts is given too. It treats depths as independent and is not corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data_schemas.report import EvaluationSettings
from data_schemas.report_sections import Bound
from data_schemas.report_verdicts import DifferenceVerdict, PairedTest, PairedTestFamily
from tasks.evaluate.published.names import is_published
from tasks.evaluate.statistics.hypothesis_tests import holm, holm_levels, mcnemar_exact, smallest_sign_flip_p
from tasks.evaluate.statistics.paired_differences import PairedDifference, agreeing, is_mcnemar
from tasks.evaluate.statistics.primary import compared_pairs, primary_length
from tasks.evaluate.statistics.task_cells import TaskCells, TaskKey, TaskRows

_TINY = 1e-12
METHOD = (
    "exact test that flips signs of the samples' mean differences (McNemar's where a sample is one right-or-wrong prompt); Holm's "
    "correction over the tests of a family"
)


def paired_families(cells: TaskCells, settings: EvaluationSettings) -> tuple[PairedTestFamily, ...]:
    """For each pair of arms its primary and its secondary family; Holm's correction covers all tests of one, findings or not.

    The primary families come first.
    """
    families = []
    for first, second in compared_pairs(key.arm for key in cells):
        keys = [key for key in cells if key.arm == first and key._replace(arm=second) in cells]
        primary = [key for key in keys if key.length == _primary_length(keys, key.task, second, settings)]
        for role, of_role in (("primary", primary), ("secondary", [key for key in keys if key not in primary])):
            if of_role:
                tests = _tests(cells, of_role, second, settings)
                families.append(PairedTestFamily(first=first, second=second, method=METHOD, role=role, tests=tests))
    return tuple(sorted(families, key=lambda family: family.role != "primary"))


def _primary_length(keys: Sequence[TaskKey], task: str, second: str, settings: EvaluationSettings) -> int | None:
    if task not in settings.tasks and (settings.tasks or is_published(task)):
        return None
    return primary_length(second, [key.length for key in keys if key.task == task], settings.base_window)


def _tests(cells: TaskCells, keys: Sequence[TaskKey], second: str, settings: EvaluationSettings) -> tuple[PairedTest, ...]:
    rows = [(cells[key], cells[key._replace(arm=second)]) for key in keys]
    differences = [PairedDifference.of(one.scores, other.scores, seed=settings.seed) for one, other in rows]
    p_values = [difference.p_value for difference in differences]
    corrected = zip(holm(p_values), holm_levels(p_values, 1 - settings.confidence), strict=True)
    return tuple(
        _test(key, one, difference, p_holm, level, len(keys), settings)
        for key, (one, _), difference, (p_holm, level) in zip(keys, rows, differences, corrected, strict=True)
    )


def _test(
    key: TaskKey,
    rows: TaskRows,
    difference: PairedDifference,
    p_holm: float,
    holm_level: float,
    family_size: int,
    settings: EvaluationSettings,
) -> PairedTest:
    """`holm_level`: where Holm's method tests this difference."""
    estimate = difference.interval(settings.confidence)
    is_shown = p_holm < 1 - settings.confidence
    nudge = max(_TINY, 1e-15 / max(holm_level, 1e-15))  # a p-value that equals its level is not left to rounding
    decided = holm_level * (1 - nudge if is_shown else 1 + nudge)
    corrected = agreeing(difference.interval(1 - holm_level), decided, 1 - holm_level)
    at_best = smallest_sign_flip_p(rows.num_samples, is_mcnemar=is_mcnemar(difference.differences))
    smallest = min(1.0, family_size * at_best)
    sums = difference.differences.totals()[0]
    sample_counts, prompt_counts = _discordant(sums), _discordant(difference.differences.values)
    return PairedTest(
        task=key.task,
        length=key.length,
        num_samples=rows.num_samples,
        num_prompts=len(rows.score),
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        samples_first_better=sample_counts[0],
        samples_second_better=sample_counts[1],
        prompts_first_better=prompt_counts[0],
        prompts_second_better=prompt_counts[1],
        p_value=difference.p_value,
        p_value_prompts=mcnemar_exact(*prompt_counts),
        p_holm=p_holm,
        low_holm=_outermost(min, corrected.low, estimate.low),
        high_holm=_outermost(max, corrected.high, estimate.high),
        smallest_p_holm=smallest,
        verdict=_verdict(estimate.value, is_shown, smallest, 1 - settings.confidence),
    )


def _outermost(choose: Callable[[float, float], float], corrected: Bound, alone: Bound) -> Bound:
    """The corrected interval never lies within the other one, which moves by itself where the test decides."""
    return None if corrected is None or alone is None else choose(corrected, alone)


def _verdict(difference: float, is_shown: bool, smallest_p_holm: float, alpha: float) -> DifferenceVerdict:
    if is_shown:
        return "first_better" if difference > 0 else "second_better"
    return "too_few_samples" if smallest_p_holm >= alpha else "not_shown"


def _discordant(differences: np.ndarray) -> tuple[int, int]:
    return int((differences > _TINY).sum()), int((differences < -_TINY).sum())
