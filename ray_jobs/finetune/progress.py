"""Progress of a training run, written by rank 0 and followed by whoever waits for it.

Two files in the run's work folder: `training_log.jsonl`, a pure function of the parameters and so part of the artifact, and
`progress.jsonl` with the same lines plus seconds, tokens/s and memory.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_schemas.storage import write_atomically

LOG_NAME, PROGRESS_NAME = "training_log.jsonl", "progress.jsonl"
LOGGED = ("step", "loss", "grad_norm", "learning_rate", "tokens", "validation_loss", "s2_validation_loss")


class TrainingLog:
    """Appends one line a step. Lines of steps after `first_step` are dropped first: they will be done again."""

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log, self._progress = folder / LOG_NAME, folder / PROGRESS_NAME
        for path in (self._log, self._progress):
            kept = [line for line in read_lines(path) if line["step"] <= first_step]
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, metrics: dict[str, Any]) -> None:
        timed = {
            "tokens_per_s": round(metrics["tokens"] / metrics["seconds"]),
            "seconds": round(metrics["seconds"], 3),
            "peak_memory_mb": peak_memory_mb(),
        }
        logged = {name: metrics[name] for name in LOGGED if name in metrics}
        for path, line in ((self._log, logged), (self._progress, logged | timed)):
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSONL file; a last line torn by a kill is left out, a missing file is empty."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def peak_memory_mb() -> int:
    """Most memory this process has had: of the GPU if it has one, else resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() / 1e6)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def describe(line: dict[str, Any], steps: int, seconds_a_step: float) -> str:
    """One line for a person: step, losses, speed, time left."""
    parts = [f"finetune: step {line['step']}/{steps}", f"loss {line['loss']:.3f}"]
    if "validation_loss" in line:
        parts.append(f"held-out {line['validation_loss']:.3f}")
    parts.append(f"{line['tokens_per_s']:,} tokens/s")
    left = (steps - line["step"]) * seconds_a_step
    parts.append(f"{left / 60:.0f} min left" if left >= 100 else f"{left:.0f} s left")
    return ", ".join(parts)


class Follower:
    """Calls `tell` with a description of each new line of `progress.jsonl`, from a thread, while the context is open."""

    def __init__(self, folder: Path, steps: int, tell: Callable[[str], None]) -> None:
        self._path, self._steps, self._tell = folder / PROGRESS_NAME, steps, tell
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        told = len(read_lines(self._path))
        finished = False
        while not finished:
            finished = self._done.wait(1.0)
            lines = read_lines(self._path)
            if len(lines) > told:
                told = len(lines)
                recent = lines[-20:]
                self._tell(describe(lines[-1], self._steps, sum(line["seconds"] for line in recent) / len(recent)))
