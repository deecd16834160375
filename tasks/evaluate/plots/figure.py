"""The look that all figures share. Drawing needs no display, and the same report gives the same bytes.

A figure is as wide as a paper's column (3.4 inches) or page (6.9 inches), so that text keeps its size in print. It is drawn once
and written twice: as a PNG with its caption, and as SVG for a page, whose colours are CSS variables, so that the page
decides between light and dark.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH, PAGE_WIDTH = 3.4, 6.9
TEXT, SMALL, CAPTION = 8, 7, 6.5  # points
_CHARACTERS_PER_INCH = 19.5  # of the caption's size

INK, MUTED, GRID = "#1b1f24", "#5f666e", "#e1e4e8"  # text and axes, marks, lines of the grid

# After Okabe & Ito: told apart with any colour vision, at least 3 : 1 against white. Markers and dashes say the same.
_STYLES: dict[str, dict[str, Any]] = {
    "base": {"color": "#d55e00", "marker": "o", "linestyle": "--"},
    "scaling_only": {"color": "#009e73", "marker": "s", "linestyle": "-."},
    "fine_tuned": {"color": "#0072b2", "marker": "D", "linestyle": "-"},
}
_FURTHER_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#b0528a", "marker": "^", "linestyle": ":"},
    {"color": "#a87600", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#3b3f46", "marker": "P", "linestyle": (0, (3, 1))},
    {"color": "#4a93c9", "marker": "X", "linestyle": (0, (1, 2))},
    {"color": "#85602f", "marker": "<", "linestyle": (0, (8, 2))},
    {"color": "#7c8000", "marker": ">", "linestyle": (0, (6, 1, 2, 1))},
)
# How the page calls each colour, in light: the page sets other values for dark.
COLOUR_VARIABLES: dict[str, str] = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    style["color"]: f"--series-{number}" for number, style in enumerate((*_STYLES.values(), *_FURTHER_STYLES), start=1)
}


class OfArm(Protocol):
    """A row of the report that is about one arm."""

    @property
    def arm(self) -> str: ...


@dataclass(frozen=True)
class Plot:
    """A figure with its caption. `name` is its file's, without the ending. One without intervals is not for the page."""

    name: str
    title: str
    caption: str
    figure: Figure
    is_for_page: bool = True

    def svg(self) -> str:
        """An `<svg>` element for a page; its identifiers begin with the plot's name, as a page holds several plots."""
        with drawing():
            self.figure.savefig(
                buffer := io.StringIO(), format="svg", transparent=True, metadata={"Date": None, "Creator": None}
            )
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        prefix = re.sub(r"[^A-Za-z0-9]+", "-", self.name)
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
        text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)  # hundredths of a point
        text = re.sub(r">\s+<", "><", text)
        for colour, variable in COLOUR_VARIABLES.items():
            text = text.replace(colour, f"var({variable})")
        return text

    def save_png(self, path: Path) -> None:
        """With the caption below, and without the name and version of the program that drew it."""
        with drawing():
            width = int(self.figure.get_figwidth() * _CHARACTERS_PER_INCH)
            self.figure.supxlabel(textwrap.fill(self.caption, width), fontsize=CAPTION, color=MUTED, x=0.01, ha="left")
            self.figure.savefig(path, format="png", metadata={"Software": None})


@contextmanager
def drawing() -> Iterator[None]:
    """What is drawn inside has the shared look. Names are never read as formulas."""
    from matplotlib import rc_context

    coloured = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color")
    fixed: dict[str, Any] = {
        "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "ropeway", "axes.linewidth": 0.7,
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    }  # fmt: skip
    with rc_context(dict.fromkeys(coloured, INK) | fixed):
        yield


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


def legend_above(figure: Figure, axes: Axes) -> None:
    """The labels of `axes` in rows above all panels, where they hide no line."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("base's window"))  # models first
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    longest = max(map(len, labels), default=1)
    most = max(1, min(len(labels), int(figure.get_figwidth() / (0.55 + 0.058 * longest))))
    columns = math.ceil(len(labels) / math.ceil(len(labels) / most)) if labels else 1  # rows of equal length
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=SMALL, handlelength=3.2)


def tidy(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels, light horizontal lines and no box."""
    axes.set_xlabel(xlabel, fontsize=TEXT)
    axes.set_ylabel(ylabel, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
