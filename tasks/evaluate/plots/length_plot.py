"""The figure of effective context lengths: one row a sense, one mark an arm, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from data_schemas.report import Report
from data_schemas.report_sections import EffectiveLength
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.plots.figure import PAGE_WIDTH, SMALL, Plot, arm_style, drawing, legend_above, new_figure, tidy
from tasks.evaluate.plots.scales import mark_window, token_axis, tokens_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARK_HEIGHT = 0.11  # inches an arm


def length_plot(report: Report) -> Plot | None:
    """None where no effective length was measured."""
    senses = _senses(report)
    arms = list(dict.fromkeys(arm for lengths in senses.values() for arm in lengths))
    if not arms:
        return None
    settings = report.settings
    measured = sorted({row.length for row in report.perplexity} | {row.length for row in report.task_means})
    below = measured[0] / 2  # where "fails at the shortest length" is drawn
    with drawing():
        figure = new_figure(PAGE_WIDTH, 0.9 + len(senses) * (_MARK_HEIGHT * len(arms) + 0.14))
        axes = figure.subplots()
        for row, lengths in enumerate(senses.values()):
            for place, arm in enumerate(arms):
                if arm in lengths:
                    y = row + 0.7 * ((place + 0.5) / len(arms) - 0.5)
                    _mark(axes, lengths[arm], y, below, arm, arms, is_first=row == _first_with(arm, senses))
        token_axis(axes, measured)
        axes.set_xlim(below / 2**0.3, measured[-1] * 2**0.6)
        mark_window(axes, settings.base_window, measured[0], measured[-1])
        tidy(axes, tokens_label("effective context length", measured), "")
        axes.set_xticks([below, *axes.get_xticks()], ["none", *(label.get_text() for label in axes.get_xticklabels())])
        axes.set_ylim(len(senses) - 0.5, -0.5)
        axes.set_yticks(range(len(senses)), list(senses), fontsize=SMALL)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        legend_above(figure, axes)
    caption = (
        "Longest length up to which each threshold holds; bars: from the unfavourable to the favourable bound of the "
        f"{percent(settings.confidence)} interval. Arrow: up to the longest measured length, or more. "
        "none: the shortest judged length fails."
    )
    return Plot("effective_length", "Effective context length", caption, figure)


def _senses(report: Report) -> dict[str, Mapping[str, EffectiveLength]]:
    """Thresholds by which some arm was judged, by their short names."""
    section = report.effective_context_length
    found: dict[str, Mapping[str, EffectiveLength]] = {
        f"perplexity within {percent(section.margin)}": section.within_margin.arms,
        "perplexity not above": section.perplexity.arms,
    }
    for entry in section.task_scores.tasks:
        name = "mean over tasks" if entry.task == "mean" else entry.task
        found[f"{name}{', by gain' if entry.measure == 'gain' else ''}"] = entry.arms
    if section.ruler.tasks:
        found["RULER's threshold"] = section.ruler.arms
    return {name: lengths for name, lengths in found.items() if lengths}


def _first_with(arm: str, senses: Mapping[str, Mapping[str, EffectiveLength]]) -> int:
    return next(row for row, lengths in enumerate(senses.values()) if arm in lengths)


def _mark(axes: Axes, found: EffectiveLength, y: float, below: float, arm: str, arms: list[str], *, is_first: bool) -> None:
    style = arm_style(arm, arms)
    value, lower, upper = (length or below for length in (found.value, found.lower, found.upper))
    label = arm_label(arm) if is_first else "_nolegend_"
    axes.plot([lower, upper], [y, y], color=style["color"], linewidth=1.4, solid_capstyle="butt")
    axes.plot([value], [y], color=style["color"], marker=style["marker"], markersize=4, linestyle="none", label=label)
    if found.upper == found.longest_measured:
        end = found.longest_measured * 2**0.35
        axes.annotate(
            "",
            xy=(end, y),
            xytext=(upper, y),
            arrowprops={"arrowstyle": "->", "color": style["color"], "linewidth": 1, "shrinkA": 0},
        )
