"""Blocks of small panels: scores above, recall gains on their own scale below, one line an arm in each panel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from data_schemas.report_sections import SpacingRow, TaskMeanRow, TaskRow
from tasks.evaluate.labels import arm_label
from tasks.evaluate.plots.figure import PAGE_WIDTH, TEXT, arm_style, legend_above, new_figure, tidy
from tasks.evaluate.plots.scales import line_with_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COLUMNS = 3
_SCORES = (0, 0.25, 0.5, 0.75, 1)
_FOUR = 4  # panels fit one row

Scored = TaskRow | TaskMeanRow | SpacingRow
Measure = Literal["accuracy", "gain"]
MEASURE_LABELS = {"accuracy": "score", "gain": "recall gain (nats)"}
_P = TypeVar("_P")


def measures_of(rows: Sequence[Scored]) -> list[Measure]:
    return ["accuracy", "gain"] if any(row.gain is not None for row in rows) else ["accuracy"]


def panels_of(
    panels: Sequence[_P], measures: Sequence[Measure], draw: Callable[[Axes, _P, Measure], str], xlabel: str
) -> Figure:
    """A block of panels for each measure; `draw` fills one and returns its title. All panels of a block share their scales."""
    from matplotlib.ticker import FuncFormatter

    columns = _FOUR if len(panels) == _FOUR else min(MAX_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = new_figure(PAGE_WIDTH, 0.6 + len(measures) * (1.65 * lines + 0.25))
    blocks = figure.subfigures(len(measures), 1, squeeze=False)[:, 0]
    for block, measure in zip(blocks, measures, strict=True):
        grid = block.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_visible(False)
                continue
            axes.set_title(draw(axes, panels[place], measure), fontsize=TEXT)
            is_bottom = place + columns >= len(panels)
            tidy(axes, "", MEASURE_LABELS[measure] if place % columns == 0 else "")
            axes.tick_params(labelbottom=is_bottom)
            if measure == "accuracy":
                axes.set_ylim(-0.03, 1.03)
                axes.set_yticks(_SCORES, [f"{score:g}" for score in _SCORES])
            else:
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        block.supxlabel(xlabel, fontsize=TEXT)
        if block is blocks[0]:
            legend_above(figure, grid[0, 0])
    return figure


def points_of(axes: Axes, x: Sequence[float], rows: Sequence[Scored], measure: Measure, arm: str, arms: Sequence[str]) -> None:
    """One arm in one panel. A recall gain is left out where it was not measured."""
    if measure == "accuracy":
        points = [(at, row.accuracy, (row.low, row.high)) for at, row in zip(x, rows, strict=True)]
    else:
        points = [
            (at, row.gain, (row.gain_low, row.gain_high)) for at, row in zip(x, rows, strict=True) if row.gain is not None
        ]
    if points:
        places, values, bounds = zip(*points, strict=True)
        line_with_intervals(axes, places, values, bounds, arm_label(arm), arm_style(arm, arms))
