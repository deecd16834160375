"""The figure of a comparison of RoPE methods; the same report gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Okabe & Ito's colours, told apart with any colour vision; markers carry the same information.
_STYLES: dict[str, dict[str, Any]] = {
    "base": {"color": "#000000", "marker": "x", "linestyle": "--"},
    "linear": {"color": "#E69F00", "marker": "s"},
    "dynamic": {"color": "#56B4E9", "marker": "^"},
    "ntk": {"color": "#009E73", "marker": "v"},
    "yarn": {"color": "#0072B2", "marker": "D"},
    "longrope": {"color": "#D55E00", "marker": "P"},
    "llama3": {"color": "#CC79A7", "marker": "o"},
}


def plot_comparison(report: dict[str, Any], path: Path) -> None:
    """Perplexity by context length, a line a method, its interval as a band, the base's window marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure = Figure(figsize=(6.8, 4.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    settings = report["settings"]
    for entry in report["methods"]:
        style, cells = _STYLES[entry["method"]], entry["cells"]
        x = [cell["length"] for cell in cells]
        name = "none" if entry["method"] == "base" else entry["method"]
        axes.plot(x, [cell["perplexity"] for cell in cells], label=name, linewidth=1.8, markersize=5, **style)
        axes.fill_between(
            x, [c["low"] for c in cells], [c["high"] for c in cells], color=style["color"], alpha=0.08, linewidth=0
        )
    values = [cell["perplexity"] for entry in report["methods"] for cell in entry["cells"]]
    if max(values) > 3 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(settings["lengths"]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    window = settings["base_window"]
    axes.axvline(window, color="0.45", linewidth=1, linestyle=":", label=f"base's window ({window})")
    axes.set_xlabel("context length (tokens)")
    axes.set_ylabel("perplexity, scaling only")
    axes.grid(visible=True, axis="y", color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.supxlabel(
        f"Last {settings['target_tokens']} tokens of the same n = {report['num_documents']} held-out documents; "
        f"bands: {settings['confidence']:.0%} intervals over documents.",
        fontsize=8,
        color="0.3",
    )
    figure.savefig(path, format="png", metadata={"Software": None})
