"""Figures of a task: heat maps of context length by depth, and recall by depth with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data_schemas.report import Report
from data_schemas.report_sections import TaskRow
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.plots.figure import (
    CAPTION,
    PAGE_WIDTH,
    SMALL,
    TEXT,
    arm_style,
    arms_of,
    caption,
    legend_above,
    new_figure,
    save,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_MAX_ANNOTATED = 11  # depths
_MAX_COLUMNS = 3
_ROW_HEIGHT = 1.55  # inches

Measure = Literal["accuracy", "gain"]


def plot_grid(report: Report, task: str, path: Path) -> None:
    """Heat maps of context length by depth, one panel an arm: accuracy above, recall gain below where it was measured."""
    rows = [row for row in report.tasks if row.task == task]
    arms = arms_of(rows)
    measures: list[Measure] = ["accuracy"]
    if any(row.gain is not None for row in rows):
        measures.append("gain")
    columns = min(_MAX_COLUMNS, len(arms))
    lines = math.ceil(len(arms) / columns)
    depths = sorted({row.depth for row in rows if row.depth is not None})
    height = _ROW_HEIGHT if depths else 0.75
    width = min(PAGE_WIDTH, 1.6 + 1.9 * columns)
    figure = new_figure(width, 0.55 + len(measures) * (lines * height + 0.25))
    parts = figure.subfigures(len(measures), 1, squeeze=False)[:, 0]
    for part, measure in zip(parts, measures, strict=True):
        _panels(part, rows, arms, measure, (lines, columns))
    caption(figure, _grid_caption(rows, task, report.settings.confidence))
    save(figure, path)


def _panels(
    figure: Figure | SubFigure, rows: Sequence[TaskRow], arms: list[str], measure: Measure, shape: tuple[int, int]
) -> None:
    lengths = sorted({row.length for row in rows})
    depths: list[float | None] = [*sorted({row.depth for row in rows if row.depth is not None})] or [None]
    colours: dict[str, Any] = {"cmap": "cividis", "vmin": 0, "vmax": 1}
    if measure == "gain":
        limit = max([1e-6, *(abs(row.gain) for row in rows if row.gain is not None)])
        colours = {"cmap": "PuOr", "vmin": -limit, "vmax": limit}
    grid = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(arms):
            axes.set_visible(False)
            continue
        of_arm = [row for row in rows if row.arm == arms[place]]
        values = {(row.depth, row.length): row.accuracy if measure == "accuracy" else row.gain for row in of_arm}
        cells = [[values.get((d, n)) for n in lengths] for d in depths]
        matrix = np.array([[np.nan if value is None else value for value in line] for line in cells])
        image = axes.imshow(matrix, aspect="auto", **colours)
        _annotate(axes, matrix, image, digits=2 if measure == "accuracy" else 1)
        _name_axes(axes, lengths, depths, is_left=place % shape[1] == 0, is_bottom=place + shape[1] >= len(arms))
        axes.set_title(arm_label(arms[place]), fontsize=TEXT)
    bar = figure.colorbar(image, ax=grid.ravel().tolist(), shrink=0.9, pad=0.01)
    bar.set_label("accuracy" if measure == "accuracy" else "recall gain (nats)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=CAPTION)
    bar.outline.set_visible(False)


def _grid_caption(rows: Sequence[TaskRow], task: str, confidence: float) -> str:
    depth = " Depth 0: gold first, 1: right before the question." if any(row.depth is not None for row in rows) else ""
    gain = any(row.gain is not None for row in rows)
    meaning = " Recall gain: log-probability of the answer with the gold in the prompt minus without it." if gain else ""
    return (
        f"Task {task}, {_count(rows)} prompts a cell; their {percent(confidence)} intervals are in report.json.{depth}{meaning}"
    )


def _count(rows: Sequence[TaskRow]) -> str:
    n = sorted({row.n for row in rows})
    return f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"


def _annotate(axes: Axes, matrix: np.ndarray, image: Any, digits: int) -> None:
    if len(matrix) > _MAX_ANNOTATED:
        return
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        text = f"{value:.{digits}f}".replace("-0.0", "0.0") if abs(value) < 0.05 else f"{value:.{digits}f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=CAPTION, color=ink)


def _name_axes(axes: Axes, lengths: list[int], depths: list[Any], *, is_left: bool, is_bottom: bool) -> None:
    axes.set_xticks(range(len(lengths)), [str(n) for n in lengths], fontsize=CAPTION, rotation=30 if len(lengths) > 4 else 0)
    step = max(1, len(depths) // 10)
    names = ["all" if d is None else f"{d:g}" for d in depths]
    axes.set_yticks(range(0, len(depths), step), names[::step], fontsize=CAPTION)
    axes.tick_params(length=0)
    axes.tick_params(labelbottom=is_bottom)
    axes.spines[:].set_visible(False)
    if is_left:
        axes.set_ylabel("depth", fontsize=SMALL)
    if is_bottom:
        axes.set_xlabel("context length (tokens)", fontsize=SMALL)


def plot_middle(report: Report, task: str, path: Path) -> None:
    """Recall by depth, one panel a context length, one line an arm with its interval as a band."""
    rows = [row for row in report.tasks if row.task == task and row.depth is not None]
    lengths, arms = sorted({row.length for row in rows}), arms_of(rows)
    columns = min(_MAX_COLUMNS, len(lengths))
    lines = math.ceil(len(lengths) / columns)
    figure = new_figure(min(PAGE_WIDTH, 1.2 + 2.0 * columns), 0.9 + 1.75 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(lengths):
            axes.set_visible(False)
            continue
        for arm in arms:
            _curve(axes, [r for r in rows if (r.arm, r.length) == (arm, lengths[place])], arm, arms)
        axes.set_ylim(-0.03, 1.03)
        bottom = place + columns >= len(lengths)
        tidy(axes, "depth" if bottom else "", "accuracy" if place % columns == 0 else "")
        axes.tick_params(labelbottom=bottom)
        axes.set_title(f"{lengths[place]} tokens", fontsize=TEXT)
    legend_above(figure, grid[0, 0])
    level = percent(report.settings.confidence)
    caption(
        figure,
        f"Task {task}, {_count(rows)} prompts a point; bands: {level} intervals. Depth 0: gold first, 1: right before the question.",
    )
    save(figure, path)


def _curve(axes: Axes, rows: Sequence[TaskRow], arm: str, arms: list[str]) -> None:
    style = arm_style(arm, arms)
    rows = sorted(rows, key=lambda row: row.depth or 0.0)
    x, low, high = (np.array(values, np.float64) for values in zip(*((r.depth, r.low, r.high) for r in rows), strict=True))
    axes.plot(x, [row.accuracy for row in rows], label=arm_label(arm), linewidth=1.3, markersize=3.2, clip_on=False, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
