"""The ledger of ingest: what became of every input of every source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_schemas.ledger import Ledger, LedgerLine, Step
from tasks.ingest.duplicates.selection import Selection

Reasons = Mapping[tuple[int, str], tuple[int, int]]  # (documents, bytes) by source number and reason


def ingest_ledger(
    sources: Sequence[str],
    unit_sources: Sequence[int],
    quarantined: Reasons,
    filtered: Reasons,
    selection: Selection,
    excerpts: np.ndarray,
    contaminated: np.ndarray,
) -> Ledger:
    """The ledger from `read` to `remaining`.

    Args:
        sources: labels, in the order of the parameters.
        unit_sources: number of the source of each unit.
        quarantined, filtered: inputs that never became a document.
        excerpts: bool [documents], removed because they repeat a passage of another one.
        contaminated: bool [documents], removed because they contain evaluated text.

    Raises ValueError if it does not add up, which would be an error in ingest.
    """
    sizes = np.diff(selection.unit_ends, prepend=0)
    source_of = np.repeat(np.asarray(unit_sources, np.int64), sizes)
    heldout = selection.facts["heldout"]
    stays = selection.keep & ~excerpts & ~contaminated
    masks: dict[Step, np.ndarray] = {
        "duplicate": ~selection.keep & selection.is_exact,
        "near_duplicate": ~selection.keep & ~selection.is_exact,
        "excerpt": selection.keep & excerpts,
        "contaminated": selection.keep & ~excerpts & contaminated,
        "held_out": stays & heldout,
        "remaining": stays & ~heldout,
    }
    lines = [*_of_reasons("quarantined", sources, quarantined), *_of_reasons("filtered", sources, filtered)]
    for step, mask in masks.items():
        lines += _of_documents(step, sources, source_of[mask], selection.facts["num_bytes"][mask])
    everything = _of_documents("read", sources, source_of, selection.facts["num_bytes"])
    ledger = Ledger.of([*lines, *(_with_unread(line, lines) for line in everything)])
    ledger.check()
    return ledger


def add_reasons(counts: dict[tuple[int, str], tuple[int, int]], source: int, more: Mapping[str, Sequence[int]]) -> None:
    """Add (documents, bytes) by reason, of one unit of a source."""
    for reason, (documents, num_bytes) in more.items():
        before = counts.get((source, reason), (0, 0))
        counts[source, reason] = (before[0] + documents, before[1] + num_bytes)


def by_reason(counts: Reasons) -> Counter[str]:
    """Number of inputs by reason, of all sources."""
    total: Counter[str] = Counter()
    for (_, reason), (documents, _bytes) in counts.items():
        total[reason] += documents
    return total


def _of_reasons(step: Step, sources: Sequence[str], counts: Reasons) -> Iterator[LedgerLine]:
    for (source, reason), (documents, num_bytes) in counts.items():
        yield LedgerLine(step=step, source=sources[source], reason=reason, documents=documents, bytes=num_bytes)


def _of_documents(step: Step, sources: Sequence[str], source_of: np.ndarray, num_bytes: np.ndarray) -> Iterator[LedgerLine]:
    documents = np.bincount(source_of, minlength=len(sources)).tolist()
    summed = np.zeros(len(sources), np.int64)
    np.add.at(summed, source_of, num_bytes)
    for source, number, size in zip(sources, documents, summed.tolist(), strict=True):
        yield LedgerLine(step=step, source=source, documents=number, bytes=size)


def _with_unread(line: LedgerLine, lines: Sequence[LedgerLine]) -> LedgerLine:
    """What was read of a source: its documents and the inputs that never became one."""
    others = [one for one in lines if one.source == line.source and one.step in ("quarantined", "filtered")]
    return line.model_copy(
        update={
            "documents": line.documents + sum(one.documents for one in others),
            "bytes": line.bytes + sum(one.bytes for one in others),
        }
    )
