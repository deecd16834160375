"""The loss of a training run as a picture."""

import io
import json
from pathlib import Path


def plot_training(log: Path) -> bytes:
    """A PNG of loss and held-out loss (nats a token) by step, from a `training_log.jsonl`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([line["step"] for line in lines], [line["loss"] for line in lines], color="#0072B2", label="training")
    for name, colour, label in (
        ("validation_loss", "#D55E00", "held out, full attention"),
        ("s2_validation_loss", "#009E73", "held out, S²-Attn"),
    ):
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label, markersize=4)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats a token)")
    axes.legend(frameon=False)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    return png.getvalue()
