"""A training run as a picture: loss, learning rate, and what the machine made of it."""

import io
import json
from pathlib import Path
from typing import Any

_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def plot_training(log: Path) -> bytes:
    """A PNG by step of the losses (nats a token) and learning rate in `training_log.jsonl`, and of tokens/s, MFU and peak memory
    where a `progress.jsonl` stands beside it."""
    progress = log.with_name("progress.jsonl")
    return draw_training(_read(log), _read(progress) if progress.is_file() else [])


def draw_training(lines: list[dict[str, Any]], timed: list[dict[str, Any]]) -> bytes:
    """The same of lines that were read already; `timed` are those of `progress.jsonl`, empty where there are none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [3.5, 1.3] + [1.5, 1.3] * bool(timed)
    figure = Figure(figsize=(6, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for name, style, colour, label in (
        ("loss", "-", _BLUE, "training"),
        ("validation_loss", "o-", _ORANGE, "held out, full attention"),
        ("s2_validation_loss", "o-", _GREEN, "held out, S²-Attn"),
    ):
        _draw(panels[0], lines, name, style, colour, label)
    panels[0].set_ylabel("loss (nats a token)")
    panels[0].legend(frameon=False)
    _draw(panels[1], lines, "learning_rate", "-", _BLUE)
    panels[1].set_ylabel("learning rate")
    if timed:
        _draw(panels[2], timed, "tokens_per_s", "-", _BLUE)
        panels[2].set_ylabel("tokens/s")
        if any("mfu" in line for line in timed):
            share = panels[2].twinx()
            _draw(share, timed, "mfu", "--", _PURPLE)
            share.set_ylabel("MFU (dashed)")
        _draw(panels[3], timed, "peak_memory_mb", "-", _BLUE)
        panels[3].set_ylabel("peak memory (MB)")
        panels[3].set_ylim(bottom=0)
    panels[-1].set_xlabel("optimizer step")
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    return png.getvalue()


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _draw(axes: Any, lines: list[dict[str, Any]], name: str, style: str, colour: str, label: str | None = None) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if points:
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4)
