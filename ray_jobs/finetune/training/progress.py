"""Progress of a training run, written by rank 0 and followed by whoever waits for it.

In the run's work folder: `training_log.jsonl`, a pure function of the parameters; `progress.jsonl` with the same lines plus what
this machine made of them (seconds, tokens/s, MFU where the device's peak is known, peak memory, time left); `tensorboard/`, events.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_schemas.storage import write_atomically
from ray_jobs.finetune.training.tensorboard import TensorBoardEvents

LOG_NAME, PROGRESS_NAME, TENSORBOARD_DIR = "training_log.jsonl", "progress.jsonl", "tensorboard"
LOGGED = ("step", "loss", "grad_norm", "learning_rate", "tokens", "validation_loss", "s2_validation_loss")


class TrainingLog:
    """Appends one line a step of `steps`. Lines of steps after `first_step` are dropped first: they will be done again."""

    def __init__(self, folder: Path, first_step: int, steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log, self._progress = folder / LOG_NAME, folder / PROGRESS_NAME
        for path in (self._log, self._progress):
            kept = [line for line in read_lines(path) if line["step"] <= first_step]
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._events = TensorBoardEvents(folder / TENSORBOARD_DIR, first_step)
        self._steps = steps
        self._last_time: float | None = None
        self._recent_s: deque[float] = deque(maxlen=20)  # of whole steps, with validation and checkpoint

    def append(self, metrics: dict[str, Any]) -> None:
        now = time.monotonic()
        self._recent_s.append(metrics["seconds"] if self._last_time is None else now - self._last_time)
        self._last_time = now
        left = (self._steps - metrics["step"]) * sum(self._recent_s) / len(self._recent_s)
        timed = {
            "tokens_per_s": round(metrics["tokens"] / metrics["seconds"]),
            "seconds": round(metrics["seconds"], 3),
            "peak_memory_mb": peak_memory_mb(),
            "seconds_left": round(left, 1),
        }
        if "mfu" in metrics:
            timed["mfu"] = round(metrics["mfu"], 6)
        logged = {name: metrics[name] for name in LOGGED if name in metrics}
        for path, line in ((self._log, logged), (self._progress, logged | timed)):
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        self._events.append(logged | timed)

    def close(self) -> None:
        self._events.close()


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


def describe(line: dict[str, Any], steps: int) -> str:
    """One line for a person: step, losses, learning rate, speed, memory, time left."""
    parts = [f"finetune: step {line['step']}/{steps}", f"loss {line['loss']:.3f}"]
    if "validation_loss" in line:
        parts.append(f"held-out {line['validation_loss']:.3f}")
    parts += [f"lr {line['learning_rate']:.1e}", f"{line['tokens_per_s']:,} tokens/s"]
    if "mfu" in line:
        parts.append(f"MFU {line['mfu']:.0%}")
    parts.append(f"{line['peak_memory_mb'] / 1000:.1f} GB")
    left = line["seconds_left"]
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
        told = read_lines(self._path)[-1:]
        finished = False
        while not finished:
            finished = self._done.wait(1.0)
            last = read_lines(self._path)[-1:]  # a run that goes on from a checkpoint drops lines first
            if last != told and last:
                self._tell(describe(last[0], self._steps))
            told = last
