"""Figures of perplexity: by context length with paired ratios beside it, and by position in the window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_schemas.report import EvaluationSettings, Report
from data_schemas.report_sections import PerplexityRow, RatioByLength
from data_schemas.rope_comparison import RopeComparisonSettings
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.plots.figure import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    TEXT,
    Plot,
    arm_style,
    arms_of,
    drawing,
    legend_above,
    new_figure,
    tidy,
)
from tasks.evaluate.plots.scales import (
    beside,
    line_with_intervals,
    mark_window,
    perplexity_axis,
    token_axis,
    tokens_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPREAD = 0.3  # octaves, over which the models' points at one length are spread
_HEIGHT = 2.7


def perplexity_plot(
    cells: Sequence[PerplexityRow],
    settings: EvaluationSettings | RopeComparisonSettings,
    ratios: Sequence[RatioByLength] = (),
) -> Plot:
    """Perplexity by context length; beside it the paired ratios, where models that work at a length can be told apart."""
    arms, lengths = arms_of(cells), sorted({cell.length for cell in cells})
    shown = _within_reach(ratios, settings.base_window)
    with drawing():
        figure = new_figure(PAGE_WIDTH if shown else COLUMN_WIDTH, _HEIGHT)
        left, *right = figure.subplots(1, 2 if shown else 1, squeeze=False)[0]
        for arm in arms:
            of_arm = sorted((cell for cell in cells if cell.arm == arm), key=lambda cell: cell.length)
            x = beside([cell.length for cell in of_arm], arms.index(arm), len(arms), width=_SPREAD, is_log=True)
            bounds = [(cell.low, cell.high) for cell in of_arm]
            values = [cell.perplexity for cell in of_arm]
            line_with_intervals(left, x, values, bounds, arm_label(arm), arm_style(arm, arms))
        _scaled(left, lengths, settings.base_window)
        perplexity_axis(left, [cell.perplexity for cell in cells])
        tidy(left, tokens_label("context length", lengths), "perplexity")
        for axes in right:
            _ratio_panel(axes, shown, arms, lengths, settings.base_window)
            left.set_title("a", fontsize=TEXT, fontweight="bold", loc="left")
            axes.set_title("b", fontsize=TEXT, fontweight="bold", loc="left")
        legend_above(figure, left)
    level = percent(settings.confidence)
    caption = (
        f"Perplexity of the last {settings.target_tokens} tokens of the same n = {cells[0].num_documents} held-out documents at "
        f"every length; bars: {level} intervals over documents."
    )
    if shown:
        caption += f" b: ratio to {arm_label(shown[0].reference)} at the same length, paired by document; below 1 is better."
        if len(shown) < len(ratios):
            caption += " The base is left out of b beyond its own window, where it fails (panel a)."
    return Plot("perplexity", "Perplexity by context length", caption, figure)


def _within_reach(ratios: Sequence[RatioByLength], window: int) -> list[RatioByLength]:
    """Without the base beyond its window: it is many times worse there, and the others would look alike beside it."""
    return [row for row in ratios if row.arm != "base" or row.length <= window]


def _ratio_panel(axes: Axes, ratios: Sequence[RatioByLength], arms: list[str], lengths: list[int], window: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    reference = arm_label(ratios[0].reference)
    axes.axhline(1, linewidth=0.9, **{k: v for k, v in arm_style(ratios[0].reference, arms).items() if k != "marker"})
    for arm in arms_of(ratios):
        of_arm = sorted((row for row in ratios if row.arm == arm), key=lambda row: row.length)
        x = beside([row.length for row in of_arm], arms.index(arm), len(arms), width=_SPREAD, is_log=True)
        bounds = [(row.low, row.high) for row in of_arm]
        line_with_intervals(axes, x, [row.ratio for row in of_arm], bounds, arm_label(arm), arm_style(arm, arms))
    _scaled(axes, lengths, window)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    tidy(axes, tokens_label("context length", lengths), f"ratio to {reference}")


def _scaled(axes: Axes, lengths: list[int], window: int) -> None:
    token_axis(axes, lengths)
    axes.set_xlim(lengths[0] / 2**0.3, lengths[-1] * 2**0.3)
    mark_window(axes, window, lengths[0], lengths[-1])


def position_plot(report: Report) -> Plot:
    """Perplexity of the tokens in log-spaced ranges of positions: one line an arm with its interval as a band."""
    cells = report.position
    arms = arms_of(cells)
    with drawing():
        figure = new_figure(PAGE_WIDTH, _HEIGHT)
        axes = figure.subplots()
        for arm in arms:
            of_arm = sorted((c for c in cells if c.arm == arm), key=lambda c: c.start)
            x = [(c.start * (c.end - 1)) ** 0.5 for c in of_arm]
            style = arm_style(arm, arms)
            axes.plot(x, [c.perplexity for c in of_arm], label=arm_label(arm), linewidth=1.2, markersize=3, **style)
            low = [c.perplexity if c.low is None else c.low for c in of_arm]
            high = [c.perplexity if c.high is None else c.high for c in of_arm]
            axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
        first, last = min(c.start for c in cells), max(c.end for c in cells)
        ticks = [2**k for k in range(0, 32) if first <= 2**k <= last]
        token_axis(axes, ticks)
        perplexity_axis(axes, [c.perplexity for c in cells])
        mark_window(axes, report.settings.base_window, first, last)
        tidy(axes, tokens_label("position in the window", ticks), "perplexity")
        legend_above(figure, axes)
    caption = (
        f"Perplexity by position, in whole windows of {cells[0].length} tokens of n = {min(c.num_documents for c in cells)} held-out "
        f"documents, each token given all before it; bands: {percent(report.settings.confidence)} intervals over documents."
    )
    return Plot("position", "Perplexity by position in the window", caption, figure)
