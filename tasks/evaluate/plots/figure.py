"""The look that all figures share. Drawing needs no display, and the same report gives the same bytes.

A figure is as wide as a paper's column (3.4 inches) or page (6.9 inches), so that text keeps its size in print.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH, PAGE_WIDTH = 3.4, 6.9
TEXT, SMALL, CAPTION = 8, 7, 6.5  # points
_CHARACTERS_PER_INCH = 19.5  # of the caption's size

# Okabe & Ito's colours, told apart with any colour vision; markers and dashes carry the same information.
_STYLES: dict[str, dict[str, Any]] = {
    "base": {"color": "#D55E00", "marker": "o", "linestyle": "--"},
    "scaling_only": {"color": "#56B4E9", "marker": "s", "linestyle": "-."},
    "fine_tuned": {"color": "#0072B2", "marker": "D", "linestyle": "-"},
}
_FURTHER_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#009E73", "marker": "^", "linestyle": ":"},
    {"color": "#CC79A7", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#E69F00", "marker": "P", "linestyle": (0, (3, 1))},
    {"color": "#000000", "marker": "X", "linestyle": (0, (1, 2))},
    {"color": "#8C8C00", "marker": "<", "linestyle": (0, (8, 2))},
    {"color": "#7F7F7F", "marker": ">", "linestyle": (0, (6, 1, 2, 1))},
)


class OfArm(Protocol):
    """A row of the report that is about one arm."""

    @property
    def arm(self) -> str: ...


def arms_of(rows: Sequence[OfArm]) -> list[str]:
    """The arms that have rows, in the report's order."""
    return list(dict.fromkeys(row.arm for row in rows))


def arm_style(arm: str, arms: Sequence[str]) -> dict[str, Any]:
    """Colour, marker and dashes of an arm among `arms`."""
    if arm in _STYLES:
        return _STYLES[arm]
    further = [a for a in arms if a not in _STYLES]
    return _FURTHER_STYLES[further.index(arm) % len(_FURTHER_STYLES)]


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure on the Agg canvas, which needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def caption(figure: Figure, sentence: str) -> None:
    """The line below the figure that says n and the interval's level."""
    width = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    figure.supxlabel(textwrap.fill(sentence, width), fontsize=CAPTION, color="0.3", x=0.01, ha="left")


def legend_above(figure: Figure, axes: Axes) -> None:
    """The labels of `axes` in rows above all panels, where they hide no line."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), int(figure.get_figwidth() / 1.6)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=SMALL, handlelength=2.8)


def tidy(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels, light horizontal lines and no box."""
    axes.set_xlabel(xlabel, fontsize=TEXT)
    axes.set_ylabel(ylabel, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    axes.grid(visible=True, axis="y", color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, without the name and version of the program that drew it."""
    figure.savefig(path, format="png", metadata={"Software": None})
