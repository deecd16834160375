"""Every figure that a report has rows for, in the order of the page."""

from __future__ import annotations

from collections.abc import Iterator

from data_schemas.report import Report
from tasks.evaluate.plots.figure import Plot
from tasks.evaluate.plots.length_plot import length_plot
from tasks.evaluate.plots.perplexity_plots import perplexity_plot, position_plot
from tasks.evaluate.plots.spacing_plot import spacing_plot
from tasks.evaluate.plots.task_plots import grid_plot, middle_plot, tasks_plot


def plots_of(report: Report) -> Iterator[Plot]:
    """Drawn one by one."""
    if report.perplexity:
        yield perplexity_plot(report.perplexity, report.settings, report.ratios_by_length)
    if (lengths := length_plot(report)) is not None:
        yield lengths
    if report.task_means:
        yield tasks_plot(report)
    for task in dict.fromkeys(row.task for row in report.tasks):
        if any(row.task == task for row in report.lost_in_the_middle):
            yield middle_plot(report, task)
        yield grid_plot(report, task)
    for task in dict.fromkeys(row.task for row in report.spacing if row.distance is not None):
        yield spacing_plot(report, task)
    if report.position:
        yield position_plot(report)
