"""A training run as a picture: loss, learning rate, speed and memory."""

import io
from collections.abc import Sequence
from typing import Any

from data_schemas.progress import StepFigures

_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def draw_training(steps: Sequence[StepFigures], timed: Sequence[StepFigures]) -> bytes:
    """A PNG by step: losses (nats a token) and learning rate of `steps`; tokens/s, MFU and peak memory of `timed`, if any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [3.5, 1.3] + [1.5, 1.3] * bool(timed)
    figure = Figure(figsize=(6, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for name, style, colour, label in (
        ("loss", "-", _BLUE, "training"),
        ("weighted_loss", "--", _PURPLE, "training, weighted"),
        ("validation_loss", "o-", _ORANGE, "held out, full attention"),
        ("s2_validation_loss", "o-", _GREEN, "held out, S²-Attn"),
    ):
        _draw(panels[0], steps, name, style, colour, label)
    panels[0].set_ylabel("loss (nats a token)")
    panels[0].legend(frameon=False)
    _draw(panels[1], steps, "learning_rate", "-", _BLUE)
    panels[1].set_ylabel("learning rate")
    if timed:
        _draw(panels[2], timed, "tokens_per_s", "-", _BLUE)
        panels[2].set_ylabel("tokens/s")
        if any(step.mfu is not None for step in timed):
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


def _draw(axes: Any, steps: Sequence[StepFigures], name: str, style: str, colour: str, label: str | None = None) -> None:
    points = [(step.step, value) for step in steps if (value := getattr(step, name)) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4)
