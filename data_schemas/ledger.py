"""The ledger: what became of every input, step by step and source by source, in documents, bytes and tokens.

Ingest writes it as `ledger.json` beside the documents and prepare continues it as `ledger.json` beside the shards. It is also
in both manifests, as `ledger` of the summary.

    read + made ─ quarantined ─ filtered ─ duplicate ─ near_duplicate ─ excerpt ─ contaminated ─ held_out = remaining
    remaining + special + repeated ─ dropped = packed
    packed + padding = rows

Retrieval documents are `made` from the text of others; each kind of them is a source of its own, and `not_made` counts by reason.
Documents, bytes and tokens add up exactly for each source, which `check` proves. Prepare counts the tokens of `remaining`, so
it replaces those lines by ones that have tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from data_schemas.record import Record, read_record

LEDGER_FILE = "ledger.json"
NO_SOURCE = ""  # the source of padding, which belongs to a row and not to a document
MOST_LISTED = 20
COLUMNS = ("documents", "bytes", "tokens")

Step = Literal[
    "read", "made", "not_made",
    "quarantined", "filtered", "duplicate", "near_duplicate", "excerpt", "contaminated", "held_out", "remaining",
    "cut", "special", "repeated", "dropped", "packed", "padding", "rows",
]  # fmt: skip
Kind = Literal["total", "in", "out", "note"]  # a sum, what is added to it, what is taken from it, and what changes no sum


class StepMeaning(NamedTuple):
    """How a step counts, and what it is called where people read it."""

    kind: Kind
    title: str


STEPS: Mapping[Step, StepMeaning] = {
    "read": StepMeaning("total", "read"),
    "made": StepMeaning("in", "retrieval documents made"),
    "not_made": StepMeaning("note", "retrieval documents that could not be made"),
    "quarantined": StepMeaning("out", "quarantined"),
    "filtered": StepMeaning("out", "filtered"),
    "duplicate": StepMeaning("out", "duplicate"),
    "near_duplicate": StepMeaning("out", "near-duplicate"),
    "excerpt": StepMeaning("out", "repeats a passage"),
    "contaminated": StepMeaning("out", "contains evaluated text"),
    "held_out": StepMeaning("out", "held out"),
    "remaining": StepMeaning("total", "remaining for training"),
    "cut": StepMeaning("note", "of these cut into chunks"),
    "special": StepMeaning("in", "BOS and EOS added"),
    "repeated": StepMeaning("in", "repeated"),
    "dropped": StepMeaning("out", "dropped"),
    "packed": StepMeaning("total", "packed"),
    "padding": StepMeaning("in", "padding"),
    "rows": StepMeaning("total", "in rows"),
}


class LedgerLine(Record):
    """What one step did with one source.

    source     the source's label, or NO_SOURCE
    reason     why, where a step has several reasons: the quarantine's code, the filter's, "budget" or "mix"; else empty
    documents  number of documents, or of inputs where no document came of one; a document counts as dropped or repeated when
               all of it is
    bytes      of their text in UTF-8; an input without a text has 0
    tokens     None in the steps before the text is tokenized
    """

    step: Step
    source: str
    reason: str = ""
    documents: int = Field(ge=0)
    bytes: int = Field(ge=0)
    tokens: int | None = Field(None, ge=0)


class Ledger(Record):
    """All lines, in the order of the steps and, within a step, of sources and reasons."""

    schema_version: Literal[1] = 1
    lines: tuple[LedgerLine, ...]

    @staticmethod
    def of(lines: Iterable[LedgerLine]) -> Ledger:
        """A ledger of `lines` in any order. Lines of out, in and note steps that count nothing are left out."""
        order = {step: place for place, step in enumerate(STEPS)}
        kept = [line for line in lines if STEPS[line.step].kind == "total" or line.documents or line.bytes or line.tokens]
        return Ledger(lines=tuple(sorted(kept, key=lambda line: (order[line.step], line.source, line.reason))))

    def continued(self, lines: Iterable[LedgerLine]) -> Ledger:
        """The ledger with the lines of later steps; lines of a step that both have replace those of this one."""
        new = tuple(lines)
        replaced = {line.step for line in new}
        return Ledger.of([line for line in self.lines if line.step not in replaced] + list(new))

    @property
    def sources(self) -> tuple[str, ...]:
        """Labels of the sources, ascending."""
        return tuple(sorted({line.source for line in self.lines} - {NO_SOURCE}))

    def summed(self, source: str | None = None) -> tuple[LedgerLine, ...]:
        """One line for each step and reason: of `source`, or of all sources together."""
        sums: dict[tuple[Step, str], LedgerLine] = {}
        for line in self.lines:
            if source is None or line.source == source:
                before = sums.get((line.step, line.reason))
                merged = line.model_copy(update={"source": source or NO_SOURCE})
                sums[line.step, line.reason] = _added(before, merged) if before else merged
        return Ledger.of(sums.values()).lines

    def total(self, step: Step, source: str | None = None) -> LedgerLine:
        """The sum of a step over its reasons, of `source` or of all sources; zeros where the step has no line."""
        total = LedgerLine(step=step, source=source or NO_SOURCE, documents=0, bytes=0)
        for line in self.summed(source):
            if line.step == step:
                total = _added(total, line)
        return total

    def table(self) -> list[tuple[str, str, int, int, int | None]]:
        """For people: (source, step and reason, documents, bytes, tokens), of all sources together and then of each.

        One source alone is not listed a second time, nor are more than MOST_LISTED.
        """
        listed = self.sources if 1 < len(self.sources) <= MOST_LISTED else ()
        rows = []
        for source in (None, *listed):
            for line in self.summed(source):
                meaning = STEPS[line.step]
                sign = {"in": "+ ", "out": "- ", "total": "= "}.get(meaning.kind, "  ")
                title = sign + meaning.title + (f": {line.reason}" if line.reason else "")
                rows.append((source or "all", title, line.documents, line.bytes, line.tokens))
        return rows

    def check(self) -> None:
        """Raises ValueError where a source's documents, bytes or tokens do not add up; it names the first such place."""
        totals = {line.step for line in self.lines if STEPS[line.step].kind == "total" and line.source != NO_SOURCE}
        for source in (*self.sources, None):
            lines = self.summed(source)
            if missing := sorted(totals - {line.step for line in lines}):
                raise ValueError(f"the ledger has no line {missing[0]!r} for the source {source!r}")
            for column in COLUMNS:
                _check_column(lines, source, column)

    def to_json(self) -> list[dict[str, Any]]:
        """The lines for a manifest's summary."""
        return [line.model_dump(mode="json", exclude_none=True) for line in self.lines]

    def write(self, folder: Path) -> None:
        """Check the ledger and write it to LEDGER_FILE in `folder`."""
        self.check()
        (folder / LEDGER_FILE).write_text(self.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")


def ledger_of(summary: Mapping[str, Any]) -> Ledger | None:
    """The ledger in a manifest's summary; None for an artifact of an older version, which has none."""
    return Ledger.model_validate({"lines": summary["ledger"]}) if "ledger" in summary else None


def read_ledger(folder: Path) -> Ledger:
    """The ledger in `folder`. UserError where there is none that can be read."""
    return read_record(folder / LEDGER_FILE, Ledger, "a ledger", "give the folder of documents or shards as it was written")


def _added(first: LedgerLine, second: LedgerLine) -> LedgerLine:
    known = [line.tokens for line in (first, second) if line.tokens is not None]
    return first.model_copy(
        update={
            "documents": first.documents + second.documents,
            "bytes": first.bytes + second.bytes,
            "tokens": sum(known) if known else None,
        }
    )


def _check_column(lines: tuple[LedgerLine, ...], source: str | None, column: str) -> None:
    """Walk down one column; a value of None begins it again at the next total that has one."""
    running: int | None = None
    for line in lines:
        kind, value = STEPS[line.step].kind, getattr(line, column)
        if kind == "total":
            if running is not None and value != running:
                where = "all sources" if source is None else f"the source {source!r}"
                raise ValueError(
                    f"the ledger does not add up: {column} of {where} come to {running:,} before {line.step!r}, which has {value}"
                )
            running = value
        elif running is not None and kind != "note":
            running += (value or 0) if kind == "in" else -(value or 0)
