"""Whether a published version is served, and if not, why, what to try, and how to serve it all the same: for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_schemas.params import PipelineParams
from data_schemas.report import read_report
from data_schemas.storage import Storage
from tasks.evaluate.report.result_files import REPORT_NAME
from tasks.publish.decision import Decision, decide
from tasks.publish.destinations.history import storage_place
from tasks.publish.destinations.pointer import rolled_back
from tasks.publish.releases import current_digest


@dataclass(frozen=True)
class Standing:
    """Of version `digest` of release `name` in the storage `where`; `serves` is the digest that is served, None if there is none."""

    name: str
    digest: str
    where: str
    serves: str | None
    is_rolled_back: bool
    decision: Decision

    @property
    def is_current(self) -> bool:
        return self.serves == self.digest

    @property
    def failed(self) -> bool:
        """Whether it is not served because of its figures, not because somebody wished so."""
        return not self.is_current and bool(self.decision.doubts)

    @property
    def state(self) -> str:
        """One sentence: whether it is served, and otherwise what is."""
        if self.is_current:
            return f"Served: it is the current version of {self.name}."
        instead = f"{self.name} still serves {self.serves[:12]}" if self.serves else f"{self.name} serves no version yet"
        return f"Not served: this version is kept, and {instead}."

    @property
    def reasons(self) -> list[str]:
        """Why it is not served, or what speaks against serving it; sentences."""
        if self.decision.is_wish:
            return ["publish.current is never."] if not self.is_current else []
        if not self.decision.doubts and self.is_rolled_back and not self.is_current:
            return ["It was rolled back."]
        return [doubt.sentence for doubt in self.decision.doubts]

    @property
    def advice(self) -> list[str]:
        """What to try, without repetitions."""
        return list(dict.fromkeys(doubt.advice for doubt in self.decision.doubts))

    @property
    def command(self) -> str:
        """That serves it all the same."""
        return f"ropeway rollback {self.name} {self.digest[:12]} --at {self.where}"

    def lines(self) -> list[str]:
        """For a terminal, one thought a line."""
        if self.is_current and not self.decision.doubts:
            return [self.state]
        return [
            self.state,
            *(f"Why: {reason}" if not self.is_current else f"But: {reason}" for reason in self.reasons),
            *(f"Try: {advice}." for advice in self.advice),
            *([] if self.is_current else [f"To serve it all the same: {self.command}"]),
        ]


def standing(params: PipelineParams, digest: str, folder: Path) -> Standing:
    """Of the version `digest` in the storage of `params`, whose files are in `folder`; the report in it decides."""
    storage, name = Storage(params.storage), params.release_name
    decision = decide(params, read_report(folder / "evaluation" / REPORT_NAME))
    is_rolled_back = digest in rolled_back(storage_place(storage), name)
    return Standing(name, digest, params.storage, current_digest(storage, name), is_rolled_back, decision)
