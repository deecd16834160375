"""A training run as a page: while it runs, from the lines it has written so far; and when it is done, from its artifact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from data_schemas.storage import Artifact
from ray_jobs.finetune.training.progress import LOG_NAME, PROGRESS_NAME, read_lines
from tasks.prefect_tasks.pages.elements import Page, Picture, duration, markdown_table, plain, small_file
from tasks.prefect_tasks.pages.training_plots import draw_training

KEY, PLOT_KEY = "training", "training-loss"
_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 60
_RECENT_STEPS = 20

Line = dict[str, Any]


def training_page(lines: list[Line], steps: int, title: str, notes: tuple[str, ...] = ()) -> Page:
    """Losses, speed and time left by the lines of `progress.jsonl`; `title` says what is trained, `notes` stand below."""
    if not lines:
        return Page(KEY, "\n\n".join((f"## {title}", f"No step of {steps:,} is done yet.", *notes)) + "\n")
    last = lines[-1]
    state = f"Step {last['step']:,} of {steps:,}"
    if last["step"] < steps and "seconds_left" in last:
        state += f", about {duration(last['seconds_left'])} left"
    curve = f"Loss from step {lines[0]['step']:,} on: `{sparkline([line['loss'] for line in lines])}`"
    return Page(KEY, "\n\n".join((f"## {title}", f"{state}.", _figures(lines), curve, *notes)) + "\n")


def finished_training(artifact: Artifact, title: str) -> Iterator[Page | Picture]:
    """Page and plot of a `checkpoints` artifact."""
    lines, timed = _read(artifact, LOG_NAME), _read(artifact, PROGRESS_NAME)
    done = artifact.manifest.summary
    notes = [f"RoPE: {done['rope_method']} x{done['factor']:g}{_reason(artifact)}."]
    if waiting := done["waiting_for_ranks"]:
        told = ", ".join(f"{w['after']:.2f} with {w['world_size']} ranks ({w['before']:.2f} dealt in turn)" for w in waiting)
        notes.append(
            f"Attention takes, by its cost, this many times what it would if ranks never waited for each other: {told}."
        )
    if timed:
        notes.append(f"{duration(sum(line['seconds'] for line in timed))} in steps, without validation and checkpoints.")
    notes.append(f"Adapter, log and TensorBoard events: artifact `{artifact.location}`.")
    yield training_page(timed or lines, done["steps"], title, tuple(notes))
    if lines:
        yield Picture(PLOT_KEY, draw_training(lines, timed))


def sparkline(values: list[float]) -> str:
    """The values as at most 60 bars between their least and their greatest; each bar is the mean of its part."""
    if not values:
        return ""
    count = min(_MOST_BARS, len(values))
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if not high > low:
        return _BARS[0] * count
    return "".join(_BARS[round((mean - low) / (high - low) * (len(_BARS) - 1))] for mean in means)


def _figures(lines: list[Line]) -> str:
    """Each figure at its first and last step, and at its best where that is told."""
    rows: list[tuple[str, str, str]] = []
    for name, label, form in (
        ("loss", "training loss (nats a token)", ".3f"),
        ("validation_loss", "held-out loss, full attention", ".3f"),
        ("s2_validation_loss", "held-out loss, S²-Attn", ".3f"),
        ("learning_rate", "learning rate", ".2e"),
        ("tokens_per_s", "tokens/s", ",.0f"),
        ("mfu", "MFU", ".1%"),
        ("peak_memory_mb", "peak memory (MB)", ",.0f"),
    ):
        if values := [line[name] for line in lines if name in line]:
            rows.append((label, format(values[0], form), format(values[-1], form)))
    recent = lines[-_RECENT_STEPS:]
    if all("tokens" in line and "seconds" in line for line in recent):
        speed = sum(line["tokens"] for line in recent) / max(1e-9, sum(line["seconds"] for line in recent))
        rows.append((f"tokens/s, last {len(recent)} steps", "", f"{speed:,.0f}"))
    return markdown_table(("", "first", "last"), rows)


def _reason(artifact: Artifact) -> str:
    with small_file(artifact, "rope_plan.json") as path:
        reason = str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path else ""
    return f"; {plain(reason, 500).rstrip('.')}" if reason else ""


def _read(artifact: Artifact, name: str) -> list[Line]:
    with small_file(artifact, name) as path:
        return read_lines(path) if path else []
