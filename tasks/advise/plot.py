"""Quality against cost: a panel a kind of question, and a point a way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_schemas.serving_advice import QuestionKind, ServingAdvice, WayResult
from tasks.advise.sentences import KIND_LABELS
from tasks.advise.table import kinds_of
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.plots.figure import INK, PAGE_WIDTH, SMALL, TEXT, Plot, arm_style, drawing, new_figure, tidy
from tasks.evaluate.plots.scales import token_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT_NAME = "serving_advice"
_MARKERS = {"full": "o", "chunks": "s", "map_reduce": "^", "refine": "v", "route": "D"}
_WAY_LABELS = {"full": "whole document", "chunks": "chunks", "map_reduce": "map-reduce", "refine": "refine", "route": "route"}


def advice_plot(advice: ServingAdvice) -> Plot:
    """One panel a kind; colours are models, markers are ways, and a ring marks the advised way."""
    kinds = kinds_of(advice)
    with drawing():
        from matplotlib.lines import Line2D

        figure = new_figure(PAGE_WIDTH, 3.1)
        grid = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
        for axes, kind in zip(grid, kinds, strict=True):
            _panel(axes, advice, kind)
            tidy(axes, "prompt tokens a question", "share right" if axes is grid[0] else "")
        arms = list(dict.fromkeys(way.arm for way in advice.ways))
        ways = list(dict.fromkeys(way.way for way in advice.ways))
        plain: dict[str, Any] = {"linestyle": "", "markersize": 5}
        handles = [
            Line2D([], [], marker="s", color=arm_style(arm, arms)["color"], label=arm_label(arm), **plain) for arm in arms
        ]
        handles += [
            Line2D([], [], marker=_MARKERS[way], color="none", markeredgecolor=INK, label=_WAY_LABELS[way], **plain)
            for way in ways
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 8), frameon=False, fontsize=SMALL)
    counts = ", ".join(f"{KIND_LABELS[kind]} {_of_kind(advice, kind)[0].num_questions}" for kind in kinds)
    caption = (
        f"Share of questions answered right against the tokens that the model reads for one. Questions: {counts}. Bars: "
        f"{percent(advice.confidence)} intervals; ring: the cheapest way that was not shown to be worse than the best."
    )
    return Plot(PLOT_NAME, "Quality against cost", caption, figure)


def _ticks(tokens: Sequence[float]) -> list[int]:
    """Powers of two from below the least to above the most."""
    asked = [number for number in tokens if number] or [1.0]
    return [2**power for power in range(math.floor(math.log2(min(asked))), math.ceil(math.log2(max(asked))) + 1)]


def _of_kind(advice: ServingAdvice, kind: QuestionKind) -> list[WayResult]:
    return [result for result in advice.results if result.kind == kind]


def _panel(axes: Axes, advice: ServingAdvice, kind: QuestionKind) -> None:
    arms = list(dict.fromkeys(way.arm for way in advice.ways))
    advised = {one.way for one in advice.advice if one.kind == kind}
    for result in _of_kind(advice, kind):
        way = advice.way(result.way)
        colour = arm_style(way.arm, arms)["color"]
        if not result.prompt_tokens:
            continue  # it could not be asked
        bars = [[result.quality - result.low], [result.high - result.quality]]
        axes.errorbar(
            [result.prompt_tokens],
            [result.quality],
            yerr=bars,
            color=colour,
            marker=_MARKERS[way.way],
            markersize=4,
            linewidth=0.7,
        )
        if result.way in advised:
            axes.plot([result.prompt_tokens], [result.quality], "o", color="none", markeredgecolor=INK, markersize=10)
    token_axis(axes, _ticks([result.prompt_tokens for result in _of_kind(advice, kind)]))
    axes.set_ylim(-0.03, 1.03)
    axes.set_title(KIND_LABELS[kind], fontsize=TEXT)
