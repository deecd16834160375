"""Join overlapping passages of one document, and find passages that follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.reorder.passages import PassageView, with_text


@dataclass(frozen=True)
class Piece:
    """One passage, or several of one document whose ranges overlap, as one text.

    `members` are rank and view of each, best first. `needed` are those that make up the text, without those that lie completely
    within others.
    """

    members: tuple[tuple[int, PassageView], ...]
    needed: tuple[PassageView, ...]
    text: str | None
    span: tuple[str, int, int] | None

    @property
    def rank(self) -> int:
        return self.members[0][0]

    def passage(self, num_tokens: int | None) -> Any:
        """The passage itself if it is alone, else a copy of the best one with the joined text."""
        best = self.members[0][1]
        if self.span is None or self.text is None or len(self.members) == 1:
            return best.passage
        return with_text(best.passage, self.text, self.span[1], num_tokens)


def piece(rank: int, view: PassageView) -> Piece:
    """A passage by itself."""
    return Piece(((rank, view),), (view,), view.text, view.span)


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces of one document in reading order, joined if their ranges share characters.

    Ranges that share characters but have different texts stay separate.
    """
    result: list[Piece] = []
    for nxt in sorted(pieces, key=_reading_order):
        both = _join(result[-1], nxt) if result else None
        if both is None:
            result.append(nxt)
        else:
            result[-1] = both
    return result


def runs(pieces: Sequence[Piece], max_gap_chars: int) -> list[list[Piece]]:
    """Groups of pieces that follow each other in a document, each in reading order, sorted by their best rank.

    A piece follows others if it starts at most `max_gap_chars` after their end, or overlaps them.
    """
    placed = sorted((p for p in pieces if p.span is not None), key=lambda p: (p.span[0], *_reading_order(p)))  # type: ignore[index]
    groups: list[list[Piece]] = [[p] for p in pieces if p.span is None]
    document, end = "", 0
    for p in placed:
        assert p.span is not None
        if groups and groups[-1][-1].span is not None and p.span[0] == document and p.span[1] - end <= max_gap_chars:
            groups[-1].append(p)
        else:
            groups.append([p])
            end = 0
        document, end = p.span[0], max(end, p.span[2])
    return sorted(groups, key=lambda group: min(p.rank for p in group))


def _reading_order(p: Piece) -> tuple[int, int, int]:
    assert p.span is not None
    return p.span[1], -p.span[2], p.rank


def _join(left: Piece, right: Piece) -> Piece | None:
    """Both as one, if `right` starts within `left` and their shared characters agree; else None."""
    assert left.span is not None
    assert right.span is not None
    assert left.text is not None
    assert right.text is not None
    (doc_id, start, left_end), (_, right_start, right_end) = left.span, right.span
    if right_start >= left_end:
        return None
    shared = min(left_end, right_end) - right_start
    if left.text[right_start - start : right_start - start + shared] != right.text[:shared]:
        return None
    members = tuple(sorted((*left.members, *right.members), key=lambda member: member[0]))
    needed = left.needed if right_end <= left_end else (*left.needed, *right.needed)
    return Piece(members, needed, left.text + right.text[shared:], (doc_id, start, max(left_end, right_end)))
