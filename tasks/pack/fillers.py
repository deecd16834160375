"""Fillers: a few pieces of long documents are cut again into short ones that fill the rows of the others.

A piece of a long document ends at a boundary of its text, some places before the end of a row, and a corpus of books has nothing
short to put there. So where rows would have more empty places than `packing.max_waste`, every so many-th piece is cut into
chunks of the size of those gaps. About as many tokens become short as places would have been empty. Whole documents and
held-out ones are never cut for this.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from tasks.chunk.chunker import Chunk, Chunker
from tasks.chunk.structure import Structure, find_structure
from tasks.tokens.encoding import EncodedText

_LARGEST_GAP = 0.25  # of a row: larger gaps are left to documents that are not seen here
_AIM = 0.5  # of the allowed empty places: what gaps too large or too small for fillers leave comes on top
_SMALLEST_FILLER = 16  # tokens
_MIN_FILL = 0.5  # gaps have many sizes, so fillers may too, and their cuts may be better


class Fillers:
    """Chooses pieces batch after batch; what is less than one piece is carried to the next batch."""

    def __init__(self, row_length: int, max_waste: float) -> None:
        self._row_length, self._max_waste = row_length, max_waste
        self._owed = 0.0  # pieces

    def choose(self, lengths: np.ndarray, is_piece: np.ndarray) -> tuple[np.ndarray, int]:
        """Which sequences to cut again, int64, and the largest size of what they are cut into.

        `lengths` are int [num_sequences]; `is_piece` bool [num_sequences], those of documents that are cut anyway.
        """
        from tasks.pack.best_fit import best_fit_decreasing

        nothing = (np.empty(0, np.int64), 0)
        if not is_piece.any():
            return nothing
        members, row_ends = best_fit_decreasing(lengths, self._row_length, len(lengths))
        starts = np.concatenate([[0], row_ends[:-1]])
        gaps = np.sort(self._row_length - np.add.reduceat(lengths[members], starts))
        gaps = gaps[gaps <= _LARGEST_GAP * self._row_length]
        running = np.cumsum(gaps)
        size = int(gaps[np.searchsorted(running, running[-1] / 2)]) if len(gaps) else 0
        excess = float(gaps.sum()) - _AIM * self._max_waste * self._row_length * len(gaps)
        givers = np.flatnonzero(is_piece & (lengths >= 2 * size))
        if size < _SMALLEST_FILLER or excess <= 0 or not len(givers):
            return nothing
        # A piece that is cut also takes away the gap of the row that it has to itself.
        own_gap = float(gaps.mean()) * float((lengths[givers] > self._row_length / 2).mean())
        self._owed += excess / (float(lengths[givers].mean()) + own_gap)
        number = min(int(self._owed), len(givers))
        self._owed -= number
        places = ((np.arange(number) + 0.5) * len(givers) / max(1, number)).astype(np.int64)
        return givers[places], size


def cut_again(
    chunker: Chunker, encoded: EncodedText, chunk: Chunk, size: int, format: str, language: str | None
) -> Iterator[Chunk]:
    """A chunk of a document as chunks of at most `size` tokens, at the boundaries of the document's text."""
    first, last = _cut_of(encoded, chunk.char_start), _cut_of(encoded, chunk.char_end)
    start_token = int(encoded.cut_token[first])
    part = EncodedText(
        encoded.text[chunk.char_start : chunk.char_end],
        encoded.ids[start_token : int(encoded.cut_token[last])],
        encoded.cut_token[first : last + 1] - start_token,
        encoded.cut_char[first : last + 1] - chunk.char_start,
    )
    smaller = copy.copy(chunker)
    smaller.max_tokens = max(size, _longest_cut(part))
    smaller.params = chunker.params.model_copy(update={"max_tokens": smaller.max_tokens, "min_fill": _MIN_FILL})
    structure = find_structure(encoded.text, format)
    for filler in smaller.cut(part, format, language):
        start, end = filler.char_start + chunk.char_start, filler.char_end + chunk.char_start
        yield Chunk(start, end, filler.token_ids, filler.num_tokens, _path_at(structure, encoded.text, start, end))


def _cut_of(encoded: EncodedText, char: int) -> int:
    return int(np.searchsorted(encoded.cut_char, char))


def _longest_cut(part: EncodedText) -> int:
    """Tokens of the longest text without a cut: a character that takes many tokens."""
    return int(np.diff(part.cut_token).max())


def _path_at(structure: Structure, text: str, start: int, end: int) -> tuple[str, ...]:
    """Titles of the sections in which a chunk starts."""
    visible = next((place for place in range(start, end) if not text[place].isspace()), start)
    paths: Sequence[tuple[str, ...]] = [(), *structure.heading_paths()] if structure.headings else [()]
    return paths[bisect_right([heading.char for heading in structure.headings], visible)]
