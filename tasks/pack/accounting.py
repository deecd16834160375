"""The ledger of prepare: what becomes of every document that ingest left for training, up to the places in rows.

`remaining` and `special` are counted by the workers that chunk, `packed` from the plan of the rows; the steps between them follow
from how often each sequence is used. So `Ledger.check` compares two independent counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_schemas.ledger import NO_SOURCE, Ledger, LedgerLine, Step
from tasks.pack.counted import Counted, Counts, summed
from tasks.pack.packer import PackingPlan
from tasks.pack.sequences import Entries
from tasks.tokens.special_tokens import SpecialTokens

LeftOut = Mapping[tuple[int, str], tuple[int, int, int]]
"""(documents, bytes, tokens) of conversations that were left out or cut, by source number and reason."""


def prepare_ledger(
    ingested: Ledger,
    sources: Sequence[str],
    counted: Counted,
    special: SpecialTokens,
    entries: Entries,
    plan: PackingPlan,
    left_out: LeftOut | None = None,
) -> Ledger:
    """`ingested` continued from `remaining` to `rows`.

    Args:
        sources: labels, in the order of the parameters.
        counted: documents of both splits, as the workers that chunk counted them.
        special: the tokens around documents and their pieces.
        entries, plan: the training sequences and their rows.
        left_out: of the conversations for training. `counted` has those that were left out as a whole among its empty documents.

    Raises ValueError if it does not add up, which would be an error in prepare.
    """
    lines = [*_of_documents(sources, counted, special, left_out or {})]
    uses = _Uses(entries, len(sources))
    flows: list[tuple[str, np.ndarray, np.ndarray]] = [
        ("budget", np.ones(len(entries.lengths), np.int64), plan.uses_budgeted),
        ("mix", plan.uses_budgeted, plan.uses),
    ]
    by_source = {source: counts for (source,), counts in summed(counted, "train", "source").items()}
    lines += _overlap(sources, by_source, uses, left_out or {})
    for reason, before, after in flows:
        more = np.subtract(after, before, dtype=np.int64)
        documents = uses.documents(after) - uses.documents(before)
        lines += uses.lines("repeated", sources, reason, np.maximum(more, 0), np.maximum(documents, 0))
        lines += uses.lines("dropped", sources, reason, np.maximum(-more, 0), np.maximum(-documents, 0))
    packed = np.bincount(plan.members, minlength=len(entries.lengths))
    of_packed = uses.lines("packed", sources, "", packed, uses.documents(packed))
    lines += [*of_packed, *_rows(of_packed, plan)]
    ledger = ingested.continued(lines)
    ledger.check()
    return ledger


def with_made(
    ingested: Ledger,
    labels: Mapping[str, str],
    sources: Sequence[str],
    counted: Counted,
    not_made: Mapping[str, Mapping[str, int]],
) -> Ledger:
    """`ingested` with the retrieval documents that were made, and those that could not be, by reason.

    Args:
        labels: the source that each family is in the ledger.
        sources: all labels, in the order of `counted`.
        not_made: by family and reason.
    """
    if not ingested.lines:
        return ingested  # of documents of an older version, whose ledger begins with `remaining`
    by_label = {sources[number]: counts for (number,), counts in summed(counted, "train", "source").items()}
    lines = list(ingested.lines)
    for family, label in labels.items():
        made = by_label.get(label, Counts())
        steps: tuple[tuple[Step, int, int], ...] = (("read", 0, 0), ("made", made.documents, made.bytes))
        lines += [
            LedgerLine(step=step, source=label, documents=documents, bytes=num_bytes) for step, documents, num_bytes in steps
        ]
        for reason, times in not_made.get(family, {}).items():
            lines.append(LedgerLine(step="not_made", source=label, reason=reason, documents=times, bytes=0))
    return Ledger.of(lines)


class _Uses:
    """Sums over sequences that are used some number of times, by source."""

    def __init__(self, entries: Entries, num_sources: int) -> None:
        self._entries, self._num_sources = entries, num_sources
        self._starts = np.flatnonzero(np.diff(entries.documents, prepend=-1))  # first sequence of each document

    def by_source(self, values: np.ndarray) -> list[int]:
        """Sums of `values` int64 [num_sequences]."""
        sums = np.zeros(self._num_sources, np.int64)
        np.add.at(sums, self._entries.sources, values)
        return [int(n) for n in sums]

    def documents(self, uses: np.ndarray) -> np.ndarray:
        """int64 [num_documents]: how often each document is used. One counts as used once from its first piece on, and again as
        often as all of its pieces are."""
        if not len(self._starts):
            return np.empty(0, np.int64)
        most, least = np.maximum.reduceat(uses, self._starts), np.minimum.reduceat(uses, self._starts)
        return (most > 0) + np.maximum(least.astype(np.int64) - 1, 0)

    def lines(
        self, step: Step, sources: Sequence[str], reason: str, uses: np.ndarray, documents: np.ndarray
    ) -> list[LedgerLine]:
        """A line for each source: sequences times `uses`, and `documents` int64 [num_documents]."""
        of_document = np.zeros(len(uses), np.int64)
        of_document[self._starts] = documents
        numbers = (of_document, uses * self._entries.num_bytes.astype(np.int64), uses * self._entries.lengths.astype(np.int64))
        columns = zip(sources, *map(self.by_source, numbers), strict=True)
        return [LedgerLine(step=step, source=s, reason=reason, documents=d, bytes=b, tokens=t) for s, d, b, t in columns]

    def beyond_documents(self) -> list[int]:
        """By source: tokens of all sequences that exceed those of their documents."""
        beyond = self._entries.lengths.astype(np.int64)
        beyond[self._starts] -= self._entries.document_lengths[self._starts]
        return self.by_source(beyond)

    def all_bytes(self) -> list[int]:
        return self.by_source(self._entries.num_bytes.astype(np.int64))


def _of_documents(sources: Sequence[str], counted: Counted, special: SpecialTokens, left_out: LeftOut) -> Iterator[LedgerLine]:
    steps: dict[str, Step] = {"train": "remaining", "heldout": "held_out"}
    for split, step in steps.items():
        of_split = summed(counted, split, "source")
        for number, label in enumerate(sources):
            c = of_split.get((number,), Counts())
            yield _line(step, label, "", c.documents, c.bytes, c.tokens)
            if split == "train":
                yield _line("cut", label, "", c.cut_documents, c.cut_bytes, c.cut_tokens)
                added = special.num * (c.documents - c.empty_documents) + special.num_bos * c.later_chunks
                yield _line("special", label, "", 0, 0, added)
                of_source = {reason: numbers for (source, reason), numbers in left_out.items() if source == number}
                whole = [numbers for numbers in of_source.values() if numbers[0]]
                documents, num_bytes = sum(n[0] for n in whole), sum(n[1] for n in whole)
                yield _line("dropped", label, "no token", c.empty_documents - documents, c.empty_bytes - num_bytes, 0)
                for reason, numbers in of_source.items():
                    yield _line("dropped", label, reason, *numbers)


def _overlap(sources: Sequence[str], by_source: dict[int, Counts], uses: _Uses, left_out: LeftOut) -> Iterator[LedgerLine]:
    """What neighbouring chunks share under the strategy `overlap`."""
    cut = {number: sum(n[1] for (source, _), n in left_out.items() if source == number and not n[0]) for number in by_source}
    for number, (label, tokens, num_bytes) in enumerate(zip(sources, uses.beyond_documents(), uses.all_bytes(), strict=True)):
        counts = by_source.get(number, Counts())
        kept = counts.bytes - counts.empty_bytes - cut.get(number, 0)
        yield _line("repeated", label, "overlap", 0, num_bytes - kept, tokens)


def _rows(packed: Sequence[LedgerLine], plan: PackingPlan) -> Iterator[LedgerLine]:
    places = plan.num_rows * plan.target_length
    documents, num_bytes = sum(line.documents for line in packed), sum(line.bytes for line in packed)
    yield _line("padding", NO_SOURCE, "", 0, 0, places - plan.num_tokens)
    yield _line("rows", NO_SOURCE, "", documents, num_bytes, places)


def _line(step: Step, source: str, reason: str, documents: int, num_bytes: int, tokens: int) -> LedgerLine:
    return LedgerLine(step=step, source=source, reason=reason, documents=documents, bytes=num_bytes, tokens=tokens)
