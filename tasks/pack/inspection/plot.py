"""An inspection of shards as one figure. Drawing needs no display; the same inspection gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.pack.inspection.figures import Inspection, SplitFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colours, told apart with any colour vision.
_COLOURS = {"train": "#0072B2", "heldout": "#E69F00"}
_MAX_SOURCES = 12


def plot(inspection: Inspection, path: Path) -> None:
    """Write a PNG: sequences by length, tokens by bucket, tokens by source; training and held-out side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    lengths, buckets, sources = figure.subplots(1, 3)
    splits = [split for split in inspection.splits if split.num_rows]
    _plot_lengths(lengths, splits)
    _plot_buckets(buckets, splits)
    _plot_sources(sources, inspection)
    for axes in (lengths, buckets, sources):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis="x" if axes is sources else "y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    told = "; ".join(f"{s.split}: {s.num_rows:,} rows, {s.num_tokens:,} tokens, {s.waste:.2%} waste" for s in splits)
    figure.supxlabel(f"{told}.", fontsize=8, color="0.3")
    figure.savefig(path, format="png", metadata={"Software": None})


def _plot_lengths(axes: Axes, splits: list[SplitFigures]) -> None:
    """Steps, two bins for each doubling; shares of sequences, so that splits of different size can be compared."""
    for split in splits:
        edges = [0.5, *(b.upper_bound for b in split.histogram)]
        shares = [b.num_sequences / split.num_sequences for b in split.histogram]
        style = {"fill": True} if split is splits[0] else {"linewidth": 1.8}
        axes.stairs(shares, edges, label=split.split, color=_COLOURS[split.split], **style)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="x", rotation=40)
    if shortest := [_shortest(split) for split in splits]:
        axes.set_xlim(min(shortest) / 2, splits[0].row_length * 1.1)
    axes.set_xlabel("sequence length (tokens)")
    axes.set_ylabel("share of sequences")
    axes.yaxis.set_major_formatter("{x:.0%}")
    if splits:
        axes.legend(frameon=False)


def _shortest(split: SplitFigures) -> int:
    return next(b.upper_bound for b in split.histogram if b.num_sequences)


def _plot_buckets(axes: Axes, splits: list[SplitFigures]) -> None:
    width = 0.8 / max(1, len(splits))
    for number, split in enumerate(splits):
        places = [place + (number - (len(splits) - 1) / 2) * width for place in range(len(split.buckets))]
        shares = [b.num_tokens / split.num_tokens for b in split.buckets]
        axes.bar(places, shares, width, label=split.split, color=_COLOURS[split.split])
    bounds = [b.upper_bound for b in splits[0].buckets] if splits else []
    axes.set_xticks(range(len(bounds)), [f"≤{bound:,}" for bound in bounds], rotation=40, ha="right", fontsize=8)
    axes.set_xlabel("length bucket (tokens)")
    axes.set_ylabel("share of tokens")
    axes.yaxis.set_major_formatter("{x:.0%}")


def _plot_sources(axes: Axes, inspection: Inspection) -> None:
    """Packed training tokens by source, the largest at the top; the smallest are summed up if there are too many."""
    tokens = {
        f.source: f.num_tokens if f.num_packed_tokens is None else f.num_packed_tokens
        for f in inspection.sources
        if f.split == "train"
    }
    ordered = sorted(tokens.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) > _MAX_SOURCES:
        rest = ordered[_MAX_SOURCES - 1 :]
        ordered = [*ordered[: _MAX_SOURCES - 1], (f"{len(rest)} others", sum(number for _, number in rest))]
    total = sum(tokens.values()) or 1
    axes.barh(range(len(ordered)), [number / total for _, number in ordered], color=_COLOURS["train"])
    labels = [name.replace("$", r"\$") for name, _ in ordered]
    axes.set_yticks(range(len(ordered)), labels, fontsize=8)
    axes.set_ylim(max(3, len(ordered)) - 0.5, -0.5)
    axes.set_xlabel("share of training tokens")
    axes.xaxis.set_major_formatter("{x:.0%}")
