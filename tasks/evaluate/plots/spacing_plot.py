"""The spacing curve: score by the distance between the first and the last fact that an answer needs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from data_schemas.report import Report
from tasks.evaluate.labels import percent
from tasks.evaluate.plots.figure import Plot, arms_of, drawing
from tasks.evaluate.plots.panels import Measure, measures_of, panels_of, points_of
from tasks.evaluate.plots.scales import beside, tokens_name
from tasks.evaluate.plots.task_plots import gain_meaning

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def spacing_plot(report: Report, task: str) -> Plot:
    """One panel a context length and number of facts, one line an arm."""
    rows = [row for row in report.spacing if row.task == task and row.distance is not None]
    arms = arms_of(rows)
    distances = sorted({row.distance for row in rows if row.distance is not None})
    closest = min((b - a for a, b in pairwise(distances)), default=0.2)

    def curves(axes: Axes, panel: tuple[int, int], measure: Measure) -> str:
        length, facts = panel
        for place, arm in enumerate(arms):
            points = [row for row in rows if (row.arm, row.length, row.num_evidence) == (arm, length, facts)]
            points.sort(key=lambda row: row.distance or 0)
            x = beside([row.distance or 0.0 for row in points], place, len(arms), width=0.6 * closest)
            points_of(axes, x, points, measure, arm, arms)
        axes.set_xticks(distances, [f"{distance:g}" for distance in distances])
        return f"{tokens_name(length)} tokens, {facts} facts"

    with drawing():
        panels = sorted({(row.length, row.num_evidence) for row in rows})
        figure = panels_of(panels, measures_of(rows), curves, "distance of the facts")
    counts = sorted({row.n for row in rows})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    caption = (
        f"Task {task} by the distance between the first and the last fact, as a share of the text, n = {n} prompts a point; bars: "
        f"{percent(report.settings.confidence)} intervals, points stand side by side."
    )
    return Plot(f"spacing_{task}", f"{task}: score by distance of the facts", caption + gain_meaning(rows), figure)
