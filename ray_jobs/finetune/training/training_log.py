"""The files that rank 0 writes while it trains, and the driver's thread that turns them into progress events.

In the run's work folder:

    training_log.jsonl   one line a step, a pure function of the parameters
    progress.jsonl       the same lines with this machine's timings: seconds, tokens/s, MFU where the device's peak is known,
                         peak memory, time left
    tensorboard/         the same figures as TensorBoard events
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_schemas.progress import ProgressCallback, StepFigures, TrainingStep
from data_schemas.storage import write_atomically
from ray_jobs.finetune.training.tensorboard import TensorBoardEvents

LOG_NAME, PROGRESS_NAME, TENSORBOARD_DIR = "training_log.jsonl", "progress.jsonl", "tensorboard"
LOGGED = ("step", "loss", "weighted_loss", "grad_norm", "learning_rate", "tokens", "validation_loss", "s2_validation_loss",
          "last_weights_validation_loss")  # fmt: skip


class TrainingLog:
    """Appends one line a step of `num_steps`. Lines after `first_step` are removed first: these steps will be done again."""

    def __init__(self, folder: Path, first_step: int, num_steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log, self._progress = folder / LOG_NAME, folder / PROGRESS_NAME
        for path in (self._log, self._progress):
            kept = [line for line in _complete_lines(path) if json.loads(line)["step"] <= first_step]
            write_atomically(path, "".join(line + "\n" for line in kept))
        self._events = TensorBoardEvents(folder / TENSORBOARD_DIR, first_step)
        self._num_steps = num_steps
        self._last_time: float | None = None
        self._recent_s: deque[float] = deque(maxlen=20)  # of whole steps, including validation and checkpoint

    def append(self, metrics: dict[str, Any]) -> None:
        now = time.monotonic()
        self._recent_s.append(metrics["seconds"] if self._last_time is None else now - self._last_time)
        self._last_time = now
        left = (self._num_steps - metrics["step"]) * sum(self._recent_s) / len(self._recent_s)
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


def read_steps(path: Path) -> list[StepFigures]:
    """The complete lines of a training log; a last line torn by a kill is left out, a missing file is empty."""
    return [StepFigures.model_validate_json(line) for line in _complete_lines(path)]


def _complete_lines(path: Path) -> list[str]:
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            json.loads(line)
        except json.JSONDecodeError:
            break
        lines.append(line)
    return lines


def peak_memory_mb() -> int:
    """Peak memory of this process in MB: allocated on the GPU if there is one, else resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() / 1e6)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


class Follower:
    """Reports each new last line of `progress.jsonl` to `progress`, from a thread, while the context is open."""

    def __init__(self, folder: Path, num_steps: int, progress: ProgressCallback) -> None:
        self._path, self._num_steps, self._progress = folder / PROGRESS_NAME, num_steps, progress
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        known = read_steps(self._path)
        finished = False
        while not finished:
            finished = self._done.wait(1.0)
            found = read_steps(self._path)
            if (figures := newest_step(found, known)) is not None:
                self._progress(TrainingStep(num_steps=self._num_steps, figures=figures))
            known = found


def newest_step(found: Sequence[StepFigures], known: Sequence[StepFigures]) -> StepFigures | None:
    """The last step of `found`, unless it is in `known`, the log as it was read before.

    A run that goes on from a checkpoint removes lines first, so the last line can be one that was told long ago.
    """
    return found[-1] if found and found[-1] not in known else None
