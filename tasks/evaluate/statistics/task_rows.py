"""The report's task scores: by depth, over all depths, and the curve that a reorder config is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from data_schemas.report import EvaluationSettings
from data_schemas.report_sections import RecallRow, TaskMeanRow, TaskRow
from tasks.evaluate.statistics.score_estimates import mean_gain, mean_score
from tasks.evaluate.statistics.task_cells import TaskCells, TaskRows

# In this order: distractors that look like the gold are what retrieved passages are to each other.
_CURVE_TASKS = ("key_value", "passkey")
_SERVED = ("fine_tuned", "scaling_only", "base")


def rows_by_depth(cells: TaskCells, settings: EvaluationSettings) -> Iterator[TaskRow]:
    """One row for each arm, task, length and depth; `depth` is null for a task whose gold is spread over the prompt."""
    for key, rows in cells.items():
        depths: list[float | None] = [*rows.depths] or [None]
        for depth in depths:
            yield TaskRow(**key._asdict(), depth=depth, **_figures(rows.at(depth), settings))


def rows_over_depths(cells: TaskCells, settings: EvaluationSettings) -> Iterator[TaskMeanRow]:
    """One row for each arm, task and length, over all depths; intervals are over samples."""
    for key, rows in cells.items():
        yield TaskMeanRow(**key._asdict(), num_samples=rows.num_samples, **_figures(rows, settings))


def _figures(rows: TaskRows, settings: EvaluationSettings) -> dict[str, Any]:
    """What `TaskRow` and `TaskMeanRow` have in common."""
    score = mean_score([rows.scores], confidence=settings.confidence)
    gain = mean_gain([rows.gains], confidence=settings.confidence)
    return {
        "n": len(rows.score),
        "accuracy": score.value,
        "low": score.low,
        "high": score.high,
        "interval": score.interval,
        "gain": gain.value if gain else None,
        "gain_low": gain.low if gain else None,
        "gain_high": gain.high if gain else None,
    }


def recall_by_position(rows: Sequence[TaskRow], target_length: int) -> tuple[RecallRow, ...]:
    """The curve of the model that would be served: fine-tuned, else scaling only, else the base.

    From key-value retrieval, else the passkey, else another task with depths. A task is skipped when another was asked
    nearer the target, or when it is all right or all wrong at its longest length, which says nothing of positions.
    """
    arm = next((arm for arm in _SERVED if any(row.arm == arm for row in rows)), None)
    curves: dict[str, list[TaskRow]] = {task: [] for task in _CURVE_TASKS}
    for row in rows:
        if row.arm == arm and row.depth is not None:
            curves.setdefault(row.task, []).append(row)
    measured = {task: curve for task, curve in curves.items() if curve}
    if not measured:
        return ()
    reach = {task: min(target_length, max(row.length for row in curve)) for task, curve in measured.items()}
    candidates = [curve for task, curve in measured.items() if reach[task] == max(reach.values())]
    chosen = next((curve for curve in candidates if _tells_positions_apart(curve)), candidates[0])
    return tuple(RecallRow(recall=row.accuracy, **row.model_dump(exclude={"accuracy"})) for row in chosen)


def _tells_positions_apart(curve: Sequence[TaskRow]) -> bool:
    longest = max(row.length for row in curve)
    recalls = [row.accuracy for row in curve if row.length == longest]
    return 0 < sum(recalls) < len(recalls)
