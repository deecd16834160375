"""Chooses where one document is cut by meaning: see `tasks.chunk.chunker` for the rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tasks.chunk.encoding import EncodedText
from tasks.chunk.sentence_rules import MAX_GAP_CHARS
from tasks.chunk.sentences import Segmenter
from tasks.chunk.structure import Boundaries, Structure, content_end, first_visible

if TYPE_CHECKING:
    from tasks.chunk.similarity import TopicShift

_LOOK_BACK_CHARS = 128


def last_within(encoded: EncodedText, first: int, max_tokens: int) -> int:
    """Index of the last cut at most `max_tokens` tokens after cut number `first`. ValueError if there is none."""
    last = int(encoded.cut_token.searchsorted(encoded.cut_token[first] + max_tokens, side="right")) - 1
    if last <= first:
        position = int(encoded.cut_char[first])
        raise ValueError(f"the character at {position} takes more than {max_tokens} tokens: raise max_tokens")
    return last


class SemanticCuts:
    """The cuts of one document. Sentences are searched only in paragraphs that have to be cut."""

    def __init__(
        self, encoded: EncodedText, structure: Structure, segmenter: Segmenter, max_tokens: int, shift: TopicShift | None
    ) -> None:
        self._encoded = encoded
        self._is_code = structure.is_code
        self._segmenter = segmenter
        self._max_tokens = max_tokens
        self._shift = shift
        self._cuts, self._levels = self._cuts_at(structure.boundaries)
        self._edges = np.concatenate([[0], self._cuts, [len(encoded.cut_token) - 1]])
        self._paragraph = (-1, -1, "")  # the last paragraph looked into: first cut, last cut, its text

    def spans(self) -> Iterator[tuple[int, int]]:
        """(first cut, last cut) of each chunk."""
        first, final = 0, len(self._encoded.cut_token) - 1
        while first < final:
            last = last_within(self._encoded, first, self._max_tokens)
            if last < final:
                last = self._strongest(first, last) or self._inside_paragraph(first, last) or last
            yield first, last
            first = last

    def _strongest(self, first: int, last: int) -> int | None:
        """The strongest heading or paragraph boundary in (first, last]; of equally strong ones the last."""
        low, high = self._cuts.searchsorted([first, last], side="right")
        if low == high:
            return None
        levels = self._levels[low:high]
        return int(self._cuts[high - 1 - np.argmin(levels[::-1])])

    def _inside_paragraph(self, first: int, last: int) -> int | None:
        """Last line or sentence boundary in (first, last], which lies inside one paragraph."""
        if self._is_code:
            return self._last_line(first, last)
        i = int(self._edges.searchsorted(first, side="right"))
        edges = (int(self._edges[i - 1]), int(self._edges[i]))
        if edges != self._paragraph[:2]:
            chars = self._encoded.cut_char
            self._paragraph = (*edges, self._encoded.text[chars[edges[0]] : chars[edges[1]]])
        if self._shift:
            found = self._sentence_cuts(first, last, *self._last_half(first, last))
            if found:
                return self._shift.choose(self._paragraph[2], self._paragraph_start, found)
        return self._last_sentence(first, last)

    @property
    def _paragraph_start(self) -> int:
        return int(self._encoded.cut_char[self._paragraph[0]])

    def _last_half(self, first: int, last: int) -> tuple[int, int]:
        """[low, high) in characters of the last half of the budget."""
        middle = last_within(self._encoded, first, max(1, self._max_tokens // 2)) if last - first > 1 else first
        return int(self._encoded.cut_char[middle]), int(self._encoded.cut_char[last]) + 1

    def _last_sentence(self, first: int, last: int) -> int | None:
        """Searches backwards from `last` in steps that double: usually little text is searched, and at most twice the
        length of a long sentence."""
        start, high = int(self._encoded.cut_char[first]), int(self._encoded.cut_char[last]) + 1
        step = _LOOK_BACK_CHARS
        while high > start:
            low = max(start, high - step)
            if found := self._sentence_cuts(first, last, low, high):
                return found[-1][0]
            high, step = low, step * 2
        return None

    def _sentence_cuts(self, first: int, last: int, low: int, high: int) -> list[tuple[int, int]]:
        """(cut, character) of the sentences that start in [low, high) and can be cut at, inside (first, last]."""
        offset, paragraph = self._paragraph_start, self._paragraph[2]
        # a sentence may start after white space, while its cut is before it
        beyond = first_visible(paragraph, high - 1 - offset, high + MAX_GAP_CHARS - offset) + 1
        cuts = []
        for position in self._segmenter.starts(paragraph, low - offset, beyond):
            end = offset + content_end(paragraph, position, position - MAX_GAP_CHARS)
            cut = self._cut_at(end, end, offset + position)
            if cut is not None and first < cut <= last:
                cuts.append((cut, offset + position))
        return cuts

    def _last_line(self, first: int, last: int) -> int | None:
        text, chars = self._encoded.text, self._encoded.cut_char
        start, end = int(chars[first]), int(chars[last])
        while (newline := text.rfind("\n", start, end)) >= start:
            cut = self._cut_at(content_end(text, newline, start), newline + 1, newline + 1)
            if cut is not None and first < cut <= last:
                return cut
            end = newline
        return None

    def _cut_at(self, low: int, best: int, high: int) -> int | None:
        """Number of the last cut in [low, best], else of the first in (best, high]; None if there is none."""
        chars = self._encoded.cut_char
        before = int(chars.searchsorted(best, side="right")) - 1
        if chars[before] >= low:
            return before
        return before + 1 if before + 1 < len(chars) and chars[before + 1] <= high else None

    def _cuts_at(self, boundaries: Boundaries) -> tuple[np.ndarray, np.ndarray]:
        """(number of the cut, level) of each boundary where a cut is possible."""
        chars = self._encoded.cut_char
        before = chars.searchsorted(boundaries.best, side="right") - 1
        after = np.minimum(before + 1, len(chars) - 1)
        cuts = np.where(chars[before] >= boundaries.low, before, after)
        can_be_cut = (chars[cuts] >= boundaries.low) & (chars[cuts] <= boundaries.high)
        return cuts[can_be_cut], boundaries.level[can_be_cut]
