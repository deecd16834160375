"""The report's task scores: by depth, over all depths, and the curve that a reorder config is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tasks.evaluate.statistics.perplexity_rows import Settings
from tasks.evaluate.statistics.scores import mean_gain, mean_score
from tasks.evaluate.statistics.task_cells import TaskCells, TaskKey, TaskRows

# In this order: distractors that look like the gold are what retrieved passages are to each other.
_CURVE_TASKS = ("key_value", "passkey")
_SERVED = ("fine_tuned", "scaling_only", "base")


def rows_by_depth(cells: TaskCells, settings: Settings) -> Iterator[dict[str, Any]]:
    """One row for each arm, task, length and depth; `depth` is null for a task whose gold stands all over the prompt."""
    for key, rows in cells.items():
        depths: list[float | None] = [*rows.depths] or [None]
        for depth in depths:
            yield key._asdict() | {"depth": depth} | _figures(rows.at(depth), settings)


def rows_over_depths(cells: TaskCells, settings: Settings) -> Iterator[dict[str, Any]]:
    """One row for each arm, task and length, over all depths; intervals are over samples."""
    for key, rows in cells.items():
        yield key._asdict() | {"num_samples": rows.num_samples} | _figures(rows, settings)


def _figures(rows: TaskRows, settings: Settings) -> dict[str, Any]:
    score = mean_score([rows.scores], confidence=settings["confidence"])
    gain = mean_gain([rows.gains], confidence=settings["confidence"])
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


def recall_by_position(rows: Sequence[dict[str, Any]], target_length: int) -> list[dict[str, Any]]:
    """The curve of the model that would be served: fine-tuned, else scaling only, else the base.

    From key-value retrieval, else the passkey, else another task with depths. A task is passed over when another was asked
    nearer the target, or when it is all right or all wrong at its longest length and so says nothing of positions.
    """
    arm = next((arm for arm in _SERVED if any(row["arm"] == arm for row in rows)), None)
    curves: dict[str, list[dict[str, Any]]] = {task: [] for task in _CURVE_TASKS}
    for row in rows:
        if row["arm"] == arm and row["depth"] is not None:
            curves.setdefault(row["task"], []).append(row)
    measured = {task: curve for task, curve in curves.items() if curve}
    if not measured:
        return []
    reach = {task: min(target_length, max(row["length"] for row in curve)) for task, curve in measured.items()}
    candidates = [curve for task, curve in measured.items() if reach[task] == max(reach.values())]
    chosen = next((curve for curve in candidates if _tells_positions_apart(curve)), candidates[0])
    return [{("recall" if key == "accuracy" else key): value for key, value in row.items()} for row in chosen]


def _tells_positions_apart(curve: Sequence[dict[str, Any]]) -> bool:
    longest = max(row["length"] for row in curve)
    recalls = [row["accuracy"] for row in curve if row["length"] == longest]
    return 0 < sum(recalls) < len(recalls)


def score_at(cells: Sequence[dict[str, Any]], key: TaskKey) -> dict[str, Any] | None:
    """The row over all depths of one arm, task and length, or None."""
    return next((row for row in cells if (row["arm"], row["task"], row["length"]) == key), None)
