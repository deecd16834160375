"""Figures of perplexity: by context length, with and without extension, and by position in the window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_schemas.report import EvaluationSettings, Report
from data_schemas.report_sections import PerplexityRow, PositionRow
from data_schemas.rope_comparison import RopeComparisonSettings
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.plots.figure import COLUMN_WIDTH, arm_style, arms_of, caption, legend_above, new_figure, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_TICKS = 8


def plot_perplexity(cells: Sequence[PerplexityRow], settings: EvaluationSettings | RopeComparisonSettings, path: Path) -> None:
    """Perplexity by context length: one line an arm with its interval as a band, and the base's window marked."""
    figure = new_figure(COLUMN_WIDTH, 2.9)
    axes = figure.subplots()
    arms = arms_of(cells)
    for arm in arms:
        of_arm = sorted((c for c in cells if c.arm == arm), key=lambda c: c.length)
        _line(axes, [c.length for c in of_arm], of_arm, arm, arms)
    lengths = sorted({c.length for c in cells})
    _scales(axes, lengths, [c.perplexity for c in cells])
    _mark_window(axes, settings.base_window, lengths[0], lengths[-1])
    tidy(axes, "context length (tokens)", "perplexity")
    legend_above(figure, axes)
    caption(
        figure,
        f"Last {settings.target_tokens} tokens of the same n = {cells[0].num_documents} held-out documents at every "
        f"length; bands: {percent(settings.confidence)} intervals over documents.",
    )
    save(figure, path)


def plot_position(report: Report, path: Path) -> None:
    """Perplexity of the tokens in log-spaced ranges of positions: one line an arm with its interval as a band."""
    figure = new_figure(COLUMN_WIDTH, 2.9)
    axes = figure.subplots()
    cells = report.position
    arms = arms_of(cells)
    for arm in arms:
        of_arm = sorted((c for c in cells if c.arm == arm), key=lambda c: c.start)
        _line(axes, [(c.start * (c.end - 1)) ** 0.5 for c in of_arm], of_arm, arm, arms)
    first, last = min(c.start for c in cells), max(c.end for c in cells)
    ticks = [2**k for k in range(0, 32) if first <= 2**k <= last]
    _scales(axes, ticks[:: 1 + (len(ticks) - 1) // _MAX_TICKS], [c.perplexity for c in cells])
    _mark_window(axes, report.settings.base_window, first, last)
    tidy(axes, "position in the window (tokens)", "perplexity")
    legend_above(figure, axes)
    documents = {c.num_documents for c in cells}
    caption(
        figure,
        f"Whole windows of {cells[0].length} tokens of n = {min(documents)} held-out documents, each token given all before "
        f"it; bands: {percent(report.settings.confidence)} intervals over documents.",
    )
    save(figure, path)


def _line(axes: Axes, x: Sequence[float], cells: Sequence[PerplexityRow | PositionRow], arm: str, arms: list[str]) -> None:
    style = arm_style(arm, arms)
    values = [c.perplexity for c in cells]
    axes.plot(x, values, label=arm_label(arm), linewidth=1.3, markersize=3.2, **style)
    low = [c.perplexity if c.low is None else c.low for c in cells]
    high = [c.perplexity if c.high is None else c.high for c in cells]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _scales(axes: Axes, ticks: list[int], values: list[float]) -> None:
    """Context on a binary logarithmic axis; perplexity on a logarithmic one where it spans more than a factor of three."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    if max(values) > 3 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if max(values) < 30 * min(values) else (1, 3)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(NullLocator())


def _mark_window(axes: Axes, window: int, first: float, last: float) -> None:
    if first <= window <= last:
        axes.axvline(window, color="0.45", linewidth=0.8, linestyle=":", label=f"base's window ({window})")
