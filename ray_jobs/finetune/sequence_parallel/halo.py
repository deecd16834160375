"""Which keys and values each part of a row needs of the parts before it.

A part [a, b) of a row needs, for the heads of one partition into segments, the keys and values from the start of the segment
that holds a, or with a sliding window w from a - w + 1, up to a. They may lie in one or several parts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.finetune.segments import Segments


@dataclass(frozen=True)
class Piece:
    """Tokens [start, end) of the row whose keys and values `sender` has and `receiver` needs, for one partition."""

    sender: int
    receiver: int
    start: int
    end: int
    partition: int


def halo_start(segments: Segments, cut: int, window: int | None = None) -> int:
    """The first token that tokens from `cut` on may look at."""
    start = segments.bounds[bisect_right(segments.bounds, cut) - 1]
    return start if window is None else max(start, cut - window + 1)


def pieces(partitions: Sequence[Segments], cuts: Sequence[int], window: int | None = None) -> list[Piece]:
    """All that is sent for a row with these `cuts` [C + 1], by receiver, partition and sender."""
    found = []
    for receiver in range(1, len(cuts) - 1):
        cut = cuts[receiver]
        for number, segments in enumerate(partitions):
            start = halo_start(segments, cut, window)
            for sender in range(receiver):
                first, last = max(start, cuts[sender]), min(cut, cuts[sender + 1])
                if first < last:
                    found.append(Piece(sender, receiver, first, last, number))
    return found


def local_segments(segments: Segments, start: int, end: int) -> tuple[int, tuple[int, ...]]:
    """(tokens of the part [start, end) that go on with a segment of an earlier part, bounds of the other segments in the part).

    Bounds count from the part's first token and end with its length.
    """
    first = bisect_right(segments.bounds, start - 1)  # the first boundary at `start` or after it
    inside = [bound - start for bound in segments.bounds[first:] if bound < end]
    return (inside[0] if inside else end - start), (*inside, end - start)
