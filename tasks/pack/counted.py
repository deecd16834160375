"""What chunking counted: documents, bytes and tokens by split, source, licence and language."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Group(NamedTuple):
    """Documents that are counted together; `source` is a number, `language` empty if it is not known."""

    split: str
    source: int
    licence: str
    language: str


class Counts(NamedTuple):
    """Sums over documents, tokens without BOS and EOS. `cut`: of documents in several chunks. `empty`: of those without a token,
    BOS and EOS included, which are in no row. `later_chunks`: chunks that are not the first of their document."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    cut_documents: int = 0
    cut_bytes: int = 0
    cut_tokens: int = 0
    empty_documents: int = 0
    empty_bytes: int = 0
    later_chunks: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*map(sum, zip(self, other, strict=True)))

    @staticmethod
    def of_document(num_bytes: int, num_tokens: int, num_chunks: int, is_empty: bool) -> Counts:
        is_cut, empty = int(num_chunks > 1), int(is_empty)
        cut = (is_cut, is_cut * num_bytes, is_cut * num_tokens)
        return Counts(1, num_bytes, num_tokens, *cut, empty, empty * num_bytes, max(0, num_chunks - 1))


Counted = dict[Group, Counts]


def to_json(counted: Counted) -> list[list[Any]]:
    """For a unit's result."""
    return [[*group, *counts] for group, counts in counted.items()]


def add(counted: Counted, rows: Iterable[Sequence[Any]]) -> None:
    """Add a unit's result."""
    width = len(Group._fields)
    for row in rows:
        group = Group(*row[:width])
        counted[group] = counted.get(group, Counts()).plus(Counts(*row[width:]))


def summed(counted: Counted, split: str, *fields: str) -> dict[tuple[Any, ...], Counts]:
    """Counts of one split by some fields of the group, in ascending order of these."""
    sums: dict[tuple[Any, ...], Counts] = {}
    for group, counts in counted.items():
        if group.split == split:
            key = tuple(getattr(group, field) for field in fields)
            sums[key] = sums.get(key, Counts()).plus(counts)
    return dict(sorted(sums.items()))
