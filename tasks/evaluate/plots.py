"""The report's two figures as PNG. Drawing needs no display, and the same report gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.evaluate.report_tables import ARM_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, told apart with any colour vision; markers and dashes carry the same information.
_STYLES: dict[str, dict[str, Any]] = {
    "base": {"color": "#D55E00", "marker": "o", "linestyle": "--"},
    "scaling_only": {"color": "#56B4E9", "marker": "s", "linestyle": "-."},
    "fine_tuned": {"color": "#0072B2", "marker": "D", "linestyle": "-"},
}
_MAX_ANNOTATED_DEPTHS = 11


def plot_perplexity(report: dict[str, Any], path: Path) -> None:
    """Perplexity by context length, one line an arm with its interval as a band, the base's window marked."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter

    figure = _figure(6.4, 4.2)
    axes = figure.subplots()
    for arm in _arms(report["perplexity"]):
        cells = sorted((c for c in report["perplexity"] if c["arm"] == arm), key=lambda c: c["length"])
        x = [c["length"] for c in cells]
        style = _STYLES[arm]
        axes.plot(x, [c["perplexity"] for c in cells], label=ARM_LABELS[arm], linewidth=1.8, markersize=5, **style)
        axes.fill_between(
            x, [c["low"] for c in cells], [c["high"] for c in cells], color=style["color"], alpha=0.15, linewidth=0
        )
    lengths = sorted({c["length"] for c in report["perplexity"]})
    values = [c["perplexity"] for c in report["perplexity"]]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    if max(values) > 3 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if max(values) < 30 * min(values) else (1, 3)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(NullLocator())
    window = report["settings"]["base_window"]
    if lengths[0] <= window <= lengths[-1]:
        axes.axvline(window, color="0.45", linewidth=1, linestyle=":", label=f"base's window ({window})")
    axes.set_xlabel("context length (tokens)")
    axes.set_ylabel("perplexity")
    axes.grid(visible=True, axis="y", color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    first, settings = report["perplexity"][0], report["settings"]
    figure.supxlabel(
        f"Last {settings['target_tokens']} tokens of the same n = {first['num_documents']} held-out documents; "
        f"bands: {settings['confidence']:.0%} intervals over documents.",
        fontsize=8,
        color="0.3",
    )
    _save(figure, path)


def plot_passkey(report: dict[str, Any], path: Path) -> None:
    """Heat maps of context length by needle depth: accuracy above, recall gain below, one column an arm."""
    arms = _arms(report["passkey"])
    lengths = sorted({c["length"] for c in report["passkey"]})
    depths = sorted({c["depth"] for c in report["passkey"]})
    gain_limit = max(1e-6, *(abs(c["gain"]) for c in report["passkey"]))
    figure = _figure(max(5.2, 1.6 + max(2.0, 0.55 * len(lengths)) * len(arms)), 5.6)
    grid = figure.subplots(2, len(arms), squeeze=False, sharex=True, sharey=True)
    measures = (
        ("accuracy", "accuracy", {"cmap": "cividis", "vmin": 0, "vmax": 1}),
        ("gain", "recall gain (nats)", {"cmap": "PuOr", "vmin": -gain_limit, "vmax": gain_limit}),
    )
    for row, (measure, label, colours) in enumerate(measures):
        for column, arm in enumerate(arms):
            values = {(c["depth"], c["length"]): c[measure] for c in report["passkey"] if c["arm"] == arm}
            matrix = np.array([[values.get((d, n), np.nan) for n in lengths] for d in depths])
            image = grid[row, column].imshow(matrix, aspect="auto", **colours)
            _annotate(grid[row, column], matrix, image)
            _name_axes(grid[row, column], lengths, depths, is_left=column == 0, is_bottom=row == 1)
            if row == 0:
                grid[row, column].set_title(ARM_LABELS[arm], fontsize=10)
        figure.colorbar(image, ax=grid[row, :].tolist(), label=label, shrink=0.9)
    n = {c["n"] for c in report["passkey"]}
    figure.supxlabel(
        f"n = {min(n)} prompts a cell; depth 0: needle first, 1: right before the question.\n"
        "Recall gain: log-probability of the key with the needle minus without it.",
        fontsize=8,
        color="0.3",
    )
    _save(figure, path)


def _arms(cells: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(c["arm"] for c in cells))


def _annotate(axes: Axes, matrix: np.ndarray, image: Any) -> None:
    if len(matrix) > _MAX_ANNOTATED_DEPTHS:
        return
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)


def _name_axes(axes: Axes, lengths: list[int], depths: list[float], *, is_left: bool, is_bottom: bool) -> None:
    axes.set_xticks(range(len(lengths)), [str(n) for n in lengths], fontsize=8, rotation=30 if len(lengths) > 4 else 0)
    step = max(1, len(depths) // 10)
    axes.set_yticks(range(0, len(depths), step), [f"{d:g}" for d in depths[::step]], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if is_left:
        axes.set_ylabel("needle depth")
    if is_bottom:
        axes.set_xlabel("context length (tokens)", fontsize=9)


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})
