"""Figures of a task by depth: heat maps of context length by depth, and curves with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_schemas.report import Report
from data_schemas.report_sections import TaskRow
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.plots.figure import (
    CAPTION,
    PAGE_WIDTH,
    SMALL,
    TEXT,
    Plot,
    arms_of,
    drawing,
    new_figure,
)
from tasks.evaluate.plots.panels import MAX_COLUMNS, MEASURE_LABELS, Measure, Scored, measures_of, panels_of, points_of
from tasks.evaluate.plots.scales import beside, token_axis, tokens_label, tokens_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_MAX_ANNOTATED = 11  # depths
_ROW_HEIGHT = 1.55  # inches

_SPREAD = 0.3  # octaves


def grid_plot(report: Report, task: str) -> Plot:
    """Heat maps of context length by depth, one panel an arm: score above, recall gain below where it was measured."""
    rows = [row for row in report.tasks if row.task == task]
    arms = arms_of(rows)
    columns = min(MAX_COLUMNS, len(arms))
    lines = math.ceil(len(arms) / columns)
    has_depths = any(row.depth is not None for row in rows)
    height = _ROW_HEIGHT if has_depths else 0.75
    measures = measures_of(rows)
    with drawing():
        figure = new_figure(min(PAGE_WIDTH, 1.6 + 1.9 * columns), 0.55 + len(measures) * (lines * height + 0.25))
        parts = figure.subfigures(len(measures), 1, squeeze=False)[:, 0]
        for part, measure in zip(parts, measures, strict=True):
            _heat_maps(part, rows, arms, measure, (lines, columns))
    caption = f"Task {task}, {_count(rows)} prompts a cell; intervals are in the tables and in the figure of curves."
    return Plot(task, f"{task}: score and gain by length and depth", caption + _meaning(rows), figure, is_for_page=False)


def tasks_plot(report: Report) -> Plot:
    """Scores over all depths by context length, one panel a task; below them the recall gain on its own scale."""
    rows = report.task_means
    tasks, arms = list(dict.fromkeys(row.task for row in rows)), arms_of(rows)
    lengths = sorted({row.length for row in rows})

    def curves(axes: Axes, task: str, measure: Measure) -> str:
        for place, arm in enumerate(arms):
            points = sorted((row for row in rows if (row.task, row.arm) == (task, arm)), key=lambda row: row.length)
            x = beside([row.length for row in points], place, len(arms), width=_SPREAD, is_log=True)
            points_of(axes, x, points, measure, arm, arms)
        token_axis(axes, lengths[:: 1 + (len(lengths) - 1) // 4])
        return task

    with drawing():
        figure = panels_of(tasks, measures_of(rows), curves, tokens_label("context length", lengths))
    counts = sorted({row.num_samples for row in rows})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    caption = (
        f"Score of each task over all depths; bars: {percent(report.settings.confidence)} intervals over the n = {n} samples of a "
        "point, points stand side by side."
    )
    return Plot("tasks", "Tasks by context length", caption + gain_meaning(rows), figure)


def middle_plot(report: Report, task: str) -> Plot:
    """Curves over depth, one panel a context length, one line an arm with intervals: score above, recall gain on its own scale."""
    rows = [row for row in report.tasks if row.task == task and row.depth is not None]
    lengths, arms, measures = sorted({row.length for row in rows}), arms_of(rows), measures_of(rows)
    depths = sorted({row.depth for row in rows if row.depth is not None})
    spread = 0.6 * min(np.diff(depths), default=0.1)
    shown = depths[:: max(1, len(depths) // 5)]

    def curves(axes: Axes, length: int, measure: Measure) -> str:
        of_length = [row for row in rows if row.length == length]
        for place, arm in enumerate(arms):
            points = sorted((row for row in of_length if row.arm == arm), key=lambda row: row.depth or 0)
            x = beside([row.depth or 0.0 for row in points], place, len(arms), width=spread)
            points_of(axes, x, points, measure, arm, arms)
        axes.set_xticks(shown, [f"{depth:g}" for depth in shown])
        return f"{tokens_name(length)} tokens"

    with drawing():
        figure = panels_of(lengths, measures, curves, "depth")
    level = percent(report.settings.confidence)
    caption = f"Task {task} by depth, {_count(rows)} prompts a point; bars: {level} intervals, points stand side by side."
    return Plot(f"middle_{task}", f"{task}: recall by depth", caption + _meaning(rows), figure)


def _count(rows: Sequence[TaskRow]) -> str:
    n = sorted({row.n for row in rows})
    return f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"


def _meaning(rows: Sequence[TaskRow]) -> str:
    depth = " Depth 0: gold first, 1: right before the question." if any(row.depth is not None for row in rows) else ""
    return depth + gain_meaning(rows)


def gain_meaning(rows: Sequence[Scored]) -> str:
    if all(row.gain is None for row in rows):
        return ""
    return " Recall gain: log-probability of the answer with the gold in the prompt minus without it."


def _heat_maps(
    figure: Figure | SubFigure, rows: Sequence[TaskRow], arms: list[str], measure: Measure, shape: tuple[int, int]
) -> None:
    lengths = sorted({row.length for row in rows})
    depths: list[float | None] = [*sorted({row.depth for row in rows if row.depth is not None})] or [None]
    grid = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(arms):
            axes.set_visible(False)
            continue
        of_arm = [row for row in rows if row.arm == arms[place]]
        values = {(row.depth, row.length): row.accuracy if measure == "accuracy" else row.gain for row in of_arm}
        cells = [[values.get((d, n)) for n in lengths] for d in depths]
        matrix = np.array([[np.nan if value is None else value for value in line] for line in cells])
        image = axes.pcolormesh(matrix, **_colours(rows, measure))
        _annotate(axes, matrix, image, digits=2 if measure == "accuracy" else 1)
        _name_axes(axes, lengths, depths, is_left=place % shape[1] == 0, is_bottom=place + shape[1] >= len(arms))
        axes.set_title(arm_label(arms[place]), fontsize=TEXT)
    grid[0, 0].set_ylim(len(depths), 0)
    bar = figure.colorbar(image, ax=grid.ravel().tolist(), shrink=0.9, pad=0.01)
    bar.set_label(MEASURE_LABELS[measure], fontsize=SMALL)
    bar.ax.tick_params(labelsize=CAPTION)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _colours(rows: Sequence[TaskRow], measure: Measure) -> dict[str, Any]:
    """Scores from 0 to 1. Gains have a scale of their own, with a middle at 0 only where some are clearly negative."""
    if measure == "accuracy":
        return {"cmap": "cividis", "vmin": 0, "vmax": 1}
    gains = [row.gain for row in rows if row.gain is not None]
    largest, smallest = max(1e-6, *map(abs, gains), 1e-6), min(gains)
    if smallest < -0.1 * largest:
        return {"cmap": "PuOr", "vmin": -largest, "vmax": largest}
    return {"cmap": "cividis", "vmin": min(0.0, smallest), "vmax": largest}


def _annotate(axes: Axes, matrix: np.ndarray, image: Any, digits: int) -> None:
    if len(matrix) > _MAX_ANNOTATED:
        return
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        text = f"{value:.{digits}f}".replace("-0.0", "0.0") if abs(value) < 0.05 else f"{value:.{digits}f}"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=CAPTION, color=ink)


def _name_axes(axes: Axes, lengths: list[int], depths: list[Any], *, is_left: bool, is_bottom: bool) -> None:
    names = [tokens_name(n) for n in lengths]
    axes.set_xticks([i + 0.5 for i in range(len(lengths))], names, fontsize=CAPTION, rotation=30 if len(lengths) > 5 else 0)
    step = max(1, len(depths) // 10)
    shown = range(0, len(depths), step)
    axes.set_yticks(
        [i + 0.5 for i in shown], ["all" if depths[i] is None else f"{depths[i]:g}" for i in shown], fontsize=CAPTION
    )
    axes.tick_params(length=0)
    axes.tick_params(labelbottom=is_bottom)
    axes.spines[:].set_visible(False)
    if is_left:
        axes.set_ylabel("depth", fontsize=SMALL)
    if is_bottom:
        axes.set_xlabel(tokens_label("context length", lengths), fontsize=SMALL)
