"""A training run seen while it runs: the share of its steps, its figures and its loss curve, a few seconds old.

What is known of it comes over one channel, the lines that the stage tells, because those come from a process of this
machine and from a job on a cluster alike. They name the folder of the run's events; where `progress.jsonl` can be read
beside that from here, every step is shown, else those that the lines tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_jobs.finetune.training.progress import PROGRESS_NAME, TENSORBOARD_DIR, read_lines
from tasks.prefect_tasks.pages.elements import Picture, Share, Shown
from tasks.prefect_tasks.pages.training import KEY, PLOT_KEY, Line, training_page
from tasks.prefect_tasks.pages.training_plots import draw_training
from tasks.prefect_tasks.periodic import Periodic

PROGRESS_KEY = f"{KEY}-progress"
SECONDS_BETWEEN_UPDATES = 5.0  # each update is a request to the server
_PICTURES = 100  # a run, at most; a server keeps every version it is sent for a while

_STEP = re.compile(r"finetune: step (?P<step>\d+)/\d+, (?P<figures>.+)")
_EVENTS = re.compile(rf"finetune: .*events: (?P<work>.+)/{TENSORBOARD_DIR}\s*$")
_FIGURES: dict[str, tuple[re.Pattern[str], Callable[[str], float]]] = {
    "loss": (re.compile(r"(?:^|, )loss ([-+.\deinfa]+)"), float),
    "validation_loss": (re.compile(r"held-out ([-+.\deinfa]+)"), float),
    "learning_rate": (re.compile(r"lr ([-+.\de]+)"), float),
    "tokens_per_s": (re.compile(r"([\d,]+) tokens/s"), lambda text: float(text.replace(",", ""))),
    "mfu": (re.compile(r"MFU (\d+)%"), lambda text: float(text) / 100),
    "peak_memory_mb": (re.compile(r"([.\d]+) GB"), lambda text: float(text) * 1000),
    "seconds_left": (re.compile(r"(\d+ (?:s|min)) left"), lambda text: float(text.split()[0]) * (60 if "min" in text else 1)),
}


def heard_step(line: str) -> Line | None:
    """The figures of a line that `ray_jobs.finetune.training.progress.describe` wrote, as in `progress.jsonl`; None for another line."""
    found = _STEP.search(line)
    if found is None:
        return None
    told: Line = {"step": int(found["step"])}
    for name, (pattern, read) in _FIGURES.items():
        if figure := pattern.search(found["figures"]):
            told[name] = read(figure[1])
    return told if "loss" in told else None


class LiveTraining:
    """Shows a run of `steps` steps through `show`, from a thread of its own, while the context is open.

    `hear` takes the stage's lines and is never slow. `show` may be: training does not wait for it. It must not raise.
    """

    def __init__(self, title: str, steps: int, show: Callable[[Shown], Any], every_s: float = SECONDS_BETWEEN_UPDATES) -> None:
        self._title, self._steps, self._show = title, steps, show
        self._heard: dict[int, Line] = {}
        self._work: Path | None = None
        self._shown_step, self._pictured_step = 0, 0
        self._periodic = Periodic(self._update, every_s)

    def hear(self, line: str) -> None:
        if events := _EVENTS.search(line):
            self._work = Path(events["work"])
        elif (step := heard_step(line)) is not None:
            self._heard[step["step"]] = step

    def __enter__(self) -> LiveTraining:
        self._periodic.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._periodic.__exit__(kind, *rest)

    def _update(self) -> None:
        lines = self._lines()
        step = lines[-1]["step"] if lines else 0
        if step == self._shown_step:
            return
        self._shown_step = step
        share = Share(PROGRESS_KEY, step / self._steps, f"{self._title}: share of {self._steps:,} steps that is done")
        self._show(share)
        self._show(training_page(lines, self._steps, self._title))
        if step - self._pictured_step >= max(1, self._steps / _PICTURES):
            self._pictured_step = step
            self._show(Picture(PLOT_KEY, draw_training(lines, lines if "tokens_per_s" in lines[-1] else [])))

    def _lines(self) -> list[Line]:
        """All steps where this machine can read them, else those that were told. The work folder is gone when a run is done."""
        heard = [self._heard[step] for step in sorted(self._heard)]
        read = read_lines(self._work / PROGRESS_NAME) if self._work is not None else []
        return read if len(read) >= len(heard) else heard
