"""Select the most relevant passages that fit a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from data_schemas.errors import UserError
from tasks.reorder.joining import Piece, joined, piece
from tasks.reorder.near_duplicates import NearDuplicates
from tasks.reorder.options import ReorderOptions
from tasks.reorder.passages import PassageView


@dataclass(frozen=True)
class Dropped:
    """A passage that did not fit the budget; it would have added `num_tokens` to the prompt."""

    passage: Any
    rank: int
    num_tokens: int


@dataclass(frozen=True)
class Merged:
    """A passage merged into the one of rank `into_rank`; `similarity` is the Jaccard similarity of near-duplicates."""

    passage: Any
    rank: int
    into_rank: int
    kind: Literal["near_duplicate", "overlap"]
    similarity: float | None = None


@dataclass(frozen=True)
class Selection:
    """The kept pieces by rank, and the dropped and merged passages; `num_tokens` is None if nothing was counted."""

    pieces: list[Piece]
    dropped: tuple[Dropped, ...]
    merged: tuple[Merged, ...]
    num_tokens: int | None
    piece_tokens: dict[int, int | None]


def select(ranked: Sequence[PassageView], options: ReorderOptions, budget_tokens: int | None) -> Selection:
    """Go through the passages, best first, and keep each one that still fits together with those already kept.

    A near-duplicate of a kept passage is merged into it; an overlapping one costs only what it adds.
    """
    shelf = _Shelf(options, budget_tokens)
    duplicates = None if options.near_duplicates is None else NearDuplicates(options.near_duplicates)
    dropped, twins = [], []
    for rank, passage in enumerate(ranked, start=1):
        twin = duplicates.twin(passage.need_text()) if duplicates else None
        if twin is not None:
            twins.append((passage.passage, rank, *twin))
        elif (excess := shelf.add(rank, passage)) is not None:
            dropped.append(Dropped(passage.passage, rank, excess))
        elif duplicates:
            duplicates.keep(rank, passage.need_text())
    pieces = sorted(shelf.pieces(), key=lambda p: p.rank)
    merged = [Merged(member.passage, rank, p.rank, "overlap") for p in pieces for rank, member in p.members[1:]]
    home = {rank: p.rank for p in pieces for rank, _ in p.members}
    merged += [Merged(passage, rank, home[into], "near_duplicate", similarity) for passage, rank, into, similarity in twins]
    return Selection(
        pieces=pieces,
        dropped=tuple(dropped),
        merged=tuple(sorted(merged, key=lambda m: m.rank)),
        num_tokens=shelf.total() if shelf.is_counting else None,
        piece_tokens={p.rank: shelf.tokens(p) if shelf.is_counting else _sum_of_own_counts(p) for p in pieces},
    )


@dataclass
class _Shelf:
    """The pieces kept so far, by document, never more than fit the budget."""

    options: ReorderOptions
    budget: int | None
    by_document: dict[Any, list[Piece]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    fixed: int = 0  # tokens of instructions and question
    kept: int = 0  # tokens of the pieces
    num_pieces: int = 0

    def __post_init__(self) -> None:
        texts = [text for text in (self.options.instructions, self.options.question) if text is not None]
        self.num_fixed = len(texts)
        if self.budget is not None and self.budget < 0:
            raise UserError(f"budget_tokens is {self.budget}: give 0 or more, or leave it out.")
        if not self.is_counting:
            return
        if texts and self.options.count_tokens is None:
            raise UserError(
                "The budget covers instructions and question too: give `count_tokens` (on the command line --tokenizer) to count them."
            )
        self.fixed = sum(self._count(text) for text in texts)
        if self.budget is not None and self.total() > self.budget:
            raise UserError(
                f"Instructions and question alone take {self.total()} tokens of a budget of {self.budget}: raise budget_tokens."
            )

    @property
    def is_counting(self) -> bool:
        return self.budget is not None or self.options.count_tokens is not None

    def total(self) -> int:
        return self._with(self.kept, self.num_pieces)

    def add(self, rank: int, passage: PassageView) -> int | None:
        """Keep the passage and return None; if it does not fit, return the tokens that it would add to the prompt."""
        new = piece(rank, passage)
        is_joining = self.options.join_overlaps and new.span is not None
        key = new.span[0] if is_joining and new.span else (rank,)
        before = self.by_document.get(key, [])
        after = joined([*before, new]) if is_joining else [new]
        kept, num_pieces = self.kept, self.num_pieces + len(after) - len(before)
        if self.is_counting:
            kept += sum(map(self.tokens, after)) - sum(map(self.tokens, before))
            if self.budget is not None and self._with(kept, num_pieces) > self.budget:
                return self._with(kept, num_pieces) - self.total()
        self.by_document[key], self.kept, self.num_pieces = after, kept, num_pieces
        return None

    def pieces(self) -> list[Piece]:
        return [p for document in self.by_document.values() for p in document]

    def tokens(self, p: Piece) -> int:
        """Tokens by `count_tokens`; without it, the sum of the passages' own counts, in which shared text counts twice."""
        if self.options.count_tokens is not None:
            return self._count(p.needed[0].need_text() if p.text is None else p.text)
        return sum(_own_count(member) for member in p.needed)

    def _with(self, kept: int, num_pieces: int) -> int:
        return self.fixed + kept + self.options.separator_tokens * max(0, self.num_fixed + num_pieces - 1)

    def _count(self, text: str) -> int:
        assert self.options.count_tokens is not None
        if text not in self.counts:
            self.counts[text] = self.options.count_tokens(text)
        return self.counts[text]


def _sum_of_own_counts(p: Piece) -> int | None:
    counts = [member.num_tokens for member in p.needed]
    return None if None in counts else sum(count for count in counts if count is not None)


def _own_count(passage: PassageView) -> int:
    if passage.num_tokens is None:
        raise UserError(
            f"Passage {passage.number} has no `num_tokens`: give `count_tokens` (on the command line --tokenizer), "
            "or a count in every passage."
        )
    return passage.num_tokens
