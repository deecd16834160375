"""How far the run of this process has come, for the line that a stopped run prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_schemas.progress import ProgressCallback, ProgressEvent, SamplesMeasured, TrainingStarted, TrainingStep


@dataclass
class Reached:
    """`doing`: the stage under way, in words; empty between stages and outside of a run.

    `steps_file`: one line a step of the training, where this machine can read it; it is ahead of the events.
    """

    doing: str = ""
    exactly: str = ""
    num_steps: int = 0
    steps_file: Path | None = None

    @contextmanager
    def during(self, doing: str, tell: ProgressCallback) -> Iterator[ProgressCallback]:
        """Note the stage while the block runs. Gives a `tell` that also notes how far it has come."""
        self.doing, self.exactly, self.steps_file = doing, "", None

        def noted(event: ProgressEvent) -> None:
            self._hear(event)
            tell(event)

        yield noted
        self.doing, self.exactly = "", ""  # not after an exception: then it says what was stopped

    def _hear(self, event: ProgressEvent) -> None:
        match event:
            case TrainingStarted():
                self.steps_file = Path(event.progress_file)
            case TrainingStep():
                self.exactly = f"at step {event.figures.step} of {event.num_steps}"
            case SamplesMeasured():
                what = "evaluation" if event.stage == "evaluate" else "advice's questions"
                self.exactly = f"at {event.share:.0%} of the {what}"

    def describe(self) -> str:
        """Such as `stopped at step 41 of 120; run again to go on`."""
        if not self.doing:
            return "stopped"
        if self.steps_file is not None and (step := _num_lines(self.steps_file)):
            self.exactly = f"at step {step} of {self.num_steps}"
        return f"stopped {self.exactly or f'while {self.doing}'}; run again to go on"


def _num_lines(file: Path) -> int:
    try:
        return file.read_bytes().count(b"\n")
    except OSError:
        return 0


REACHED = Reached()
"""Of this process, which runs one stage at a time."""
