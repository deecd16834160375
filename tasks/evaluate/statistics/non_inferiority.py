"""Did a model lose anything at the base's window? Its perplexity and scores against the base's, with a declared margin."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from data_schemas.report import EvaluationSettings
from data_schemas.report_verdicts import NonInferiority, PerplexityVerdict, TaskVerdict, Verdict
from tasks.evaluate.statistics.estimates import Estimate, is_non_inferior
from tasks.evaluate.statistics.paired_differences import PairedDifference, tango_bounds
from tasks.evaluate.statistics.perplexity_rows import Cell, ratio_of
from tasks.evaluate.statistics.score_estimates import mean_score
from tasks.evaluate.statistics.task_cells import TaskCells

# A lower score says that the model does not do the task at all.
SCORE_FLOOR = 0.1


def non_inferiority(perplexity: dict[Cell, pa.Table], cells: TaskCells, settings: EvaluationSettings) -> NonInferiority:
    """At the base's window: perplexity's ratio and each score's difference to the base, against the declared margin.

    The verdict is `non_inferior` when the unfavourable bound lies within the margin, `inferior` when the favourable one lies
    beyond it. Else it is `too_few_samples` where even equal scores of this many samples leave the margin open, or `not_shown`. It is
    `not_measurable` for a task that the base does not do.
    """
    return NonInferiority(
        margin=settings.non_inferiority_margin,
        base_window=settings.base_window,
        perplexity=tuple(_perplexity_verdicts(perplexity, settings)),
        tasks=tuple(_task_verdicts(cells, settings)),
    )


def does_task(score: Estimate) -> bool:
    """Whether a score is high enough that a share or a loss of it says something."""
    return score.value >= SCORE_FLOOR


def lower_bound_of_equal(num_samples: float, confidence: float) -> float:
    """The lower bound of the difference of two models that score alike on every prompt of this many samples."""
    return tango_bounds(0.0, 0.0, num_samples, confidence)[0]


def _perplexity_verdicts(cells: dict[Cell, pa.Table], settings: EvaluationSettings) -> Iterator[PerplexityVerdict]:
    window, margin = settings.base_window, settings.non_inferiority_margin
    reference = Cell("base", window)
    for cell in cells:
        if cell.length != window or cell.arm == "base" or reference not in cells:
            continue
        ratio = ratio_of(cells, cell, reference, settings)
        is_inferior = ratio.low is not None and ratio.low >= 1 + margin
        yield PerplexityVerdict(
            arm=cell.arm,
            ratio=ratio.value,
            low=ratio.low,
            high=ratio.high,
            verdict="non_inferior" if is_non_inferior(ratio, margin) else "inferior" if is_inferior else "not_shown",
        )


def _task_verdicts(cells: TaskCells, settings: EvaluationSettings) -> Iterator[TaskVerdict]:
    for key, rows in cells.items():
        reference = cells.get(key._replace(arm="base"))
        if key.length != settings.base_window or key.arm == "base" or reference is None:
            continue
        base = mean_score([reference.scores], confidence=settings.confidence)
        change = PairedDifference.of(rows.scores, reference.scores, seed=settings.seed).interval(settings.confidence)
        best_low = lower_bound_of_equal(rows.scores.num_equal_samples(), settings.confidence)
        yield TaskVerdict(
            arm=key.arm,
            task=key.task,
            base_score=base.value,
            difference=change.value,
            low=change.low,
            high=change.high,
            num_samples=rows.num_samples,
            verdict=_task_verdict(change, best_low, settings.non_inferiority_margin) if does_task(base) else "not_measurable",
            best_low=best_low,
        )


def _task_verdict(change: Estimate, best_low: float, margin: float) -> Verdict:
    low, high = change.low or 0.0, change.high or 0.0
    if low > -margin:
        return "non_inferior"
    if high <= -margin:
        return "inferior"
    return "too_few_samples" if best_low <= -margin else "not_shown"
