"""How far the run of this process has come, for the line that a stopped run prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from data_schemas.progress import ProgressCallback, ProgressEvent, SamplesMeasured, TrainingStep


@dataclass
class Reached:
    """`doing`: the stage under way, in words; empty between stages and outside of a run."""

    doing: str = ""
    exactly: str = ""

    @contextmanager
    def during(self, doing: str, tell: ProgressCallback) -> Iterator[ProgressCallback]:
        """Note the stage while the block runs. Gives a `tell` that also notes how far it has come."""
        self.doing, self.exactly = doing, ""

        def noted(event: ProgressEvent) -> None:
            self._hear(event)
            tell(event)

        yield noted
        self.doing, self.exactly = "", ""  # not after an exception: then it says what was stopped

    def _hear(self, event: ProgressEvent) -> None:
        match event:
            case TrainingStep():
                self.exactly = f"at step {event.figures.step} of {event.num_steps}"
            case SamplesMeasured():
                self.exactly = f"at {event.share:.0%} of the evaluation"

    def describe(self) -> str:
        """Such as `stopped at step 41 of 120; run again to go on`."""
        if not self.doing:
            return "stopped"
        return f"stopped {self.exactly or f'while {self.doing}'}; run again to go on"


REACHED = Reached()
"""Of this process, which runs one stage at a time."""
