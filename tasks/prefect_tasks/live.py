"""What a stage shows while it runs: the training's figures and loss curve, the share of an evaluation that is done.

Both read the stage's progress events, which come from a process of this machine and from a job on a cluster alike. Neither
makes the stage wait for the Prefect server: they show in a thread of their own, every few seconds.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from data_schemas.progress import ProgressEvent, SamplesMeasured, StepFigures, TrainingStarted, TrainingStep
from ray_jobs.finetune.training.training_log import read_steps
from tasks.prefect_tasks.pages import evaluation, training
from tasks.prefect_tasks.pages.elements import Picture, Share, Shown
from tasks.prefect_tasks.pages.training_plots import draw_training

Show = Callable[[Shown], Any]

SECONDS_BETWEEN_UPDATES = 5.0  # each update is a request to the server
_LAST_UPDATE_S = 15.0  # how long the end waits for the last update, as the server may be away
_MAX_PICTURES = 100  # a training run, because the server keeps every version for a while


class Periodic:
    """Calls `update` in a thread of its own while the context is open, and once more when it ends without an exception.

    `update` must not raise. It may be slow: a clean end waits for it for some seconds at most, an end by an exception, such as
    a cancellation, not at all. It sees the context variables of the thread that opened the context.
    """

    def __init__(self, update: Callable[[], None], every_s: float) -> None:
        self._update, self._every_s = update, every_s
        self._ended = threading.Event()
        self._failed = False

    def __enter__(self) -> Self:
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="periodic", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._failed = kind is not None
        self._ended.set()
        if not self._failed:
            self._thread.join(_LAST_UPDATE_S)

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self._update()
        if not self._failed:
            self._update()


class LiveTraining(Periodic):
    """Shows a training run of `num_steps` steps through `show` while the context is open.

    `hear` takes the stage's events and is quick; `show` may be slow and must not raise. Every step is shown where this machine
    can read the run's `progress.jsonl`, else the steps that were heard.
    """

    def __init__(self, title: str, num_steps: int, show: Show, every_s: float = SECONDS_BETWEEN_UPDATES) -> None:
        super().__init__(self._show_new, every_s)
        self._title, self._num_steps, self._show = title, num_steps, show
        self._heard: dict[int, StepFigures] = {}
        self._file: Path | None = None
        self._shown_step, self._pictured_step = 0, 0

    def hear(self, event: ProgressEvent) -> None:
        match event:
            case TrainingStarted():
                self._file = Path(event.progress_file)
            case TrainingStep():
                self._heard[event.figures.step] = event.figures

    def _show_new(self) -> None:
        steps = self._steps()
        last = steps[-1].step if steps else 0
        if last == self._shown_step:
            return
        self._shown_step = last
        title = f"{self._title}: share of {self._num_steps:,} steps that is done"
        self._show(Share(f"{training.KEY}-progress", last / self._num_steps, title))
        self._show(training.training_page(steps, self._num_steps, self._title))
        if last - self._pictured_step >= max(1, self._num_steps / _MAX_PICTURES):
            self._pictured_step = last
            self._show(Picture(training.PLOT_KEY, draw_training(steps, steps if steps[-1].tokens_per_s else [])))

    def _steps(self) -> list[StepFigures]:
        """The file is gone when the run is done, so what was heard may be more."""
        heard = [self._heard[step] for step in sorted(self._heard)]
        read = read_steps(self._file) if self._file is not None else []
        return read if len(read) >= len(heard) else heard


class LiveEvaluation(Periodic):
    """Shows the share of an evaluation, or of the advice, that is done through `show` while the context is open; see `LiveTraining`."""

    def __init__(self, title: str, show: Show, every_s: float = SECONDS_BETWEEN_UPDATES, key: str = evaluation.KEY) -> None:
        super().__init__(self._show_new, every_s)
        self._title, self._show, self._key = title, show, key
        self._heard, self._shown = 0.0, 0.0

    def hear(self, event: ProgressEvent) -> None:
        if isinstance(event, SamplesMeasured):
            self._heard = event.share

    def _show_new(self) -> None:
        if (share := self._heard) > self._shown:
            self._shown = share
            self._show(Share(f"{self._key}-progress", share, f"{self._title}: share of its work that is done"))
