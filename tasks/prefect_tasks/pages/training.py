"""A training run as a page: from its steps so far while it runs, from its artifact when it is done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

from data_schemas.progress import StepFigures
from data_schemas.quantities import duration
from data_schemas.storage import Artifact
from ray_jobs.finetune.training.training_log import LOG_NAME, PROGRESS_NAME, read_steps
from tasks.prefect_tasks.pages.elements import Page, Picture, markdown_table, plain, small_file
from tasks.prefect_tasks.pages.training_plots import draw_training

KEY, PLOT_KEY = "training", "training-loss"
_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 60
_RECENT_STEPS = 20


def training_page(steps: Sequence[StepFigures], num_steps: int, title: str, notes: tuple[str, ...] = ()) -> Page:
    """Losses, speed and time left of the steps done so far; `title` says what is trained, `notes` follow at the end."""
    if not steps:
        return Page(KEY, "\n\n".join((f"## {title}", f"No step of {num_steps:,} is done yet.", *notes)) + "\n")
    last = steps[-1]
    state = f"Step {last.step:,} of {num_steps:,}"
    if last.step < num_steps and last.seconds_left is not None:
        state += f", about {duration(last.seconds_left)} left"
    curve = f"Loss from step {steps[0].step:,} on: `{sparkline([step.loss for step in steps])}`"
    return Page(KEY, "\n\n".join((f"## {title}", f"{state}.", _figures(steps), curve, *notes)) + "\n")


def finished_training(artifact: Artifact, title: str) -> Iterator[Page | Picture]:
    """Page and plot of a `checkpoints` artifact."""
    logged, timed = _read(artifact, LOG_NAME), _read(artifact, PROGRESS_NAME)
    done = artifact.manifest.summary
    notes = [f"RoPE: {done['rope_method']} x{done['factor']:g}{_reason(artifact)}."]
    if waiting := done["waiting_for_ranks"]:
        factors = ", ".join(
            f"{of['after']:.2f} with {of['world_size']} ranks ({of['before']:.2f} without balancing)" for of in waiting
        )
        notes.append(f"Time of attention, as a multiple of what it would be if ranks never waited for each other: {factors}.")
    if timed:
        seconds = sum(step.seconds or 0.0 for step in timed)
        notes.append(f"{duration(seconds)} in steps, not counting validation and checkpoints.")
    notes.append(f"Adapter, log and TensorBoard events: artifact `{artifact.location}`.")
    yield training_page(timed or logged, done["steps"], title, tuple(notes))
    if logged:
        yield Picture(PLOT_KEY, draw_training(logged, timed))


def sparkline(values: list[float]) -> str:
    """The values as at most 60 bars, scaled from the smallest to the largest; each bar is a mean of neighbours."""
    if not values:
        return ""
    count = min(_MOST_BARS, len(values))
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if not high > low:
        return _BARS[0] * count
    return "".join(_BARS[round((mean - low) / (high - low) * (len(_BARS) - 1))] for mean in means)


def _figures(steps: Sequence[StepFigures]) -> str:
    """Each figure at the first and the last step that has it."""
    rows: list[tuple[str, str, str]] = []
    for name, label, form in (
        ("loss", "training loss (nats a token)", ".3f"),
        ("weighted_loss", "weighted training loss", ".3f"),
        ("validation_loss", "held-out loss, full attention", ".3f"),
        ("s2_validation_loss", "held-out loss, S²-Attn", ".3f"),
        ("learning_rate", "learning rate", ".2e"),
        ("tokens_per_s", "tokens/s", ",.0f"),
        ("mfu", "MFU", ".1%"),
        ("peak_memory_mb", "peak memory (MB)", ",.0f"),
    ):
        if values := [value for step in steps if (value := getattr(step, name)) is not None]:
            rows.append((label, format(values[0], form), format(values[-1], form)))
    recent = steps[-_RECENT_STEPS:]
    if all(step.tokens and step.seconds for step in recent):
        speed = sum(step.tokens or 0 for step in recent) / sum(step.seconds or 0.0 for step in recent)
        rows.append((f"tokens/s, last {len(recent)} steps", "", f"{speed:,.0f}"))
    return markdown_table(("", "first", "last"), rows)


def _reason(artifact: Artifact) -> str:
    with small_file(artifact, "rope_plan.json") as path:
        reason = str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path else ""
    return f"; {plain(reason, 500).rstrip('.')}" if reason else ""


def _read(artifact: Artifact, name: str) -> list[StepFigures]:
    with small_file(artifact, name) as path:
        return read_steps(path) if path else []
