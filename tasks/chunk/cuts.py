"""Chooses where one document is cut by meaning: see `tasks.chunk.chunker` for the rule."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from tasks.chunk.blocks import LINE, Block, Document
from tasks.chunk.graphemes import starts_cluster
from tasks.chunk.sentence_rules import MAX_GAP_CHARS
from tasks.chunk.sentences import Segmenter
from tasks.chunk.structure import Boundaries, Structure, content_end, first_visible
from tasks.chunk.words_inside import last_clause, last_edge, last_space
from tasks.tokens.encoding import EncodedText

if TYPE_CHECKING:
    from tasks.chunk.similarity import TopicShift

_LOOK_BACK_CHARS = 128
_SMALLEST = 0.25  # of the budget: neither of the last two pieces of a document is smaller if that costs no sentence
_CLAUSE_SHARE = 0.5  # of the budget: a clause is looked for in the last part of a long sentence
_FIRST_STEP = 8  # tokens: the smallest part of the budget that is searched by itself


def last_within(encoded: EncodedText, first: int, max_tokens: int) -> int:
    """Index of the last cut at most `max_tokens` tokens after cut number `first`. ValueError if there is none."""
    last = int(encoded.cut_token.searchsorted(encoded.cut_token[first] + max_tokens, side="right")) - 1
    if last <= first:
        position = int(encoded.cut_char[first])
        raise ValueError(f"the character at {position} takes more than {max_tokens} tokens: raise max_tokens")
    return last


class SemanticCuts:
    """The cuts of one document. Lines and sentences are searched only in blocks that have to be cut.

    Only cuts between grapheme clusters are numbered here; the others are used where one cluster is over the budget.
    """

    def __init__(
        self,
        encoded: EncodedText,
        structure: Structure,
        segmenter: Segmenter,
        max_tokens: int,
        min_fill: float,
        shift: TopicShift | None = None,
    ) -> None:
        self._encoded = encoded
        self._document = Document(structure)
        self._is_code = structure.is_code
        self._segmenter = segmenter
        self._max_tokens = max_tokens
        self._step = max(_FIRST_STEP, round(max_tokens * (1 - min_fill)))
        self._shift = shift
        whole = starts_cluster(encoded.text, encoded.cut_char)
        self._number = np.flatnonzero(whole)  # of each cut among those of `encoded`
        self._token, self._char = encoded.cut_token[whole], encoded.cut_char[whole]
        self._cuts, self._levels = self._cuts_at(structure.boundaries)
        self._edges = [0, *self._cuts, len(self._char) - 1]
        self._block: Block | None = None  # the last block looked into
        self._lines: tuple[list[int], list[int]] = ([], [])  # cuts at its lines, and their levels
        self._weak_lines = self._lines

    def spans(self) -> Iterator[tuple[int, int]]:
        """(first cut, last cut) of each chunk, among those of the encoded text."""
        encoded = self._encoded
        first, final = 0, len(encoded.cut_token) - 1
        while first < final:
            last = last_within(encoded, first, self._max_tokens)
            if last < final:
                start = int(encoded.cut_token[first])
                first_whole = int(self._token.searchsorted(start, side="right")) - 1
                last_whole = int(self._number.searchsorted(last, side="right")) - 1
                if last_whole > first_whole and self._number[last_whole] > first:
                    last = int(self._number[self._choose(first_whole, last_whole, start)])
            yield first, last
            first = last

    def _choose(self, first: int, last: int, start: int) -> int:
        """The best cut in (first, last], for a chunk that starts before token `start`."""
        smallest = round(_SMALLEST * self._max_tokens)
        high = start + min(self._max_tokens, int(self._token[-1]) - start - smallest)
        if high < start + self._max_tokens:  # two pieces are left: neither should be tiny
            low = max(first, int(self._token.searchsorted(start + smallest, side="left")) - 1)
            before = int(self._token.searchsorted(high, side="right")) - 1
            if before > low and (found := self._down_to_sentence(low, before)):
                return found
            if found := self._down_to_sentence(first, last):
                return found
            last = before if before > first else last
        elif found := self._down_to_sentence(first, last):
            return found
        return self._inside_sentence(first, last) or last

    def _down_to_sentence(self, first: int, last: int) -> int | None:
        """The strongest heading, block, line or sentence in the last part of (first, last]; if there is none, in a part that
        is twice as long, and so on. A block in the second part goes before a line or sentence in the first."""
        parts, ahead = self._parts(first, last), []
        for low, high in islice(parts, 2):
            if found := _strongest(self._cuts, self._levels, low, high):
                return found
            ahead.append((low, high))
        for low, high in ahead:
            if found := self._line_or_sentence(first, low, high, last):
                return found
        for low, high in parts:
            found = _strongest(self._cuts, self._levels, low, high) or self._line_or_sentence(first, low, high, last)
            if found:
                return found
        return None

    def _parts(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """(first, last] in parts, from the last: as long as the share that `min_fill` leaves free, then what makes the searched
        text twice as long, and so on."""
        end, step, high = int(self._token[last]), self._step, last
        while high > first:
            low = max(first, int(self._token.searchsorted(end - step, side="left")) - 1)
            if low < high:
                yield low, high
                high = low
            step *= 2

    def _line_or_sentence(self, first: int, low: int, high: int, last: int) -> int | None:
        """The best line or sentence boundary in (low, high], which lies inside one block."""
        if self._is_code:
            return self._last_code_line(low, high)
        block = self._enter(low)
        if block.is_fence:
            return None
        if self._shift and block.has_sentences and high == last:
            middle = self._last_half(first, last)
            lowest = max(block.first, int(self._char.searchsorted(middle, side="left")) - 1)
            sentences = self._sentence_cuts(block, max(first, lowest), last, middle, int(self._char[last]) + 1)
            if sentences:
                return self._shift.choose(block.text, block.start, sentences)
        if found := _strongest(*self._lines, low, high):
            return found
        return self._last_sentence(block, low, high) if block.has_sentences else None

    def _last_code_line(self, first: int, last: int) -> int | None:
        text, chars = self._document.lines, self._char
        start, end = int(chars[first]), int(chars[last])
        while (newline := text.rfind("\n", start, end)) >= start:
            cut = self._cut_at(content_end(text, newline, start), newline + 1, newline + 1)
            if cut is not None and first < cut <= last:
                return cut
            end = newline
        return None

    def _enter(self, cut: int) -> Block:
        """The block behind a cut, with its lines."""
        i = min(bisect_right(self._edges, cut), len(self._edges) - 1)
        first, last = self._edges[i - 1], self._edges[i]
        if self._block is None or (self._block.first, self._block.last) != (first, last):
            self._block = self._document.block(first, last, int(self._char[first]), int(self._char[last]))
            self._lines = self._cuts_at(self._block.lines)
            weak = [(cut, level) for cut, level in zip(*self._lines, strict=True) if level > LINE]
            if weak:
                strong = [(cut, level) for cut, level in zip(*self._lines, strict=True) if level <= LINE]
                self._lines = [cut for cut, _ in strong], [level for _, level in strong]
            self._weak_lines = [cut for cut, _ in weak], [level for _, level in weak]
        return self._block

    def _inside_sentence(self, first: int, last: int) -> int | None:
        """A cut in (first, last] that holds no end of a sentence: a line of a fence or of a table's head, else a clause, else a word."""
        block = self._enter(last - 1)
        for low, high in self._parts(first, last):
            if found := _strongest(*(self._lines if block.is_fence else self._weak_lines), low, high):
                return found
        chars, text = self._char, self._document.lines
        half = int(self._token[last]) - round(self._max_tokens * _CLAUSE_SHARE)
        middle = max(first, int(self._token.searchsorted(half, side="left")) - 1)
        low, high = int(chars[middle]) + 1, int(chars[last])
        for position in last_clause(text, low, high, block.is_in_table(high - 1)):
            if found := self._at(position, first, last):
                return found
        for start in (middle, first):
            if found := last_space(text, chars, start, last) or last_edge(text, chars, start, last):
                return found
        return None

    def _at(self, position: int, first: int, last: int) -> int | None:
        """The cut at `position`, or in the white space behind it, in (first, last]."""
        cut = self._cut_at(position, position, first_visible(self._document.lines, position, position + MAX_GAP_CHARS))
        return cut if cut is not None and first < cut <= last else None

    def _last_half(self, first: int, last: int) -> int:
        """The first character of the last half of the budget."""
        middle = int(self._token[first]) + max(1, self._max_tokens // 2)
        cut = int(self._token.searchsorted(middle, side="right")) - 1
        return int(self._char[max(first, min(cut, last - 1))])

    def _last_sentence(self, block: Block, first: int, last: int) -> int | None:
        """Searches backwards from `last` in steps that double: usually little text is searched, and at most twice the
        length of a long sentence."""
        start, high = int(self._char[first]), int(self._char[last]) + 1
        step = _LOOK_BACK_CHARS
        while high > start:
            low = max(start, high - step)
            if found := self._sentence_cuts(block, first, last, low, high):
                return found[-1][0]
            high, step = low, step * 2
        return None

    def _sentence_cuts(self, block: Block, first: int, last: int, low: int, high: int) -> list[tuple[int, int]]:
        """(cut, character) of the sentences that start in [low, high) and can be cut at, inside (first, last]."""
        offset, text = block.start, block.text
        # a sentence may start after white space, while its cut is before it
        beyond = first_visible(text, high - 1 - offset, high + MAX_GAP_CHARS - offset) + 1
        cuts = []
        for position in self._segmenter.starts(text, max(low - offset, block.body + 1), beyond):
            end = offset + content_end(text, position, position - MAX_GAP_CHARS)
            cut = self._cut_at(end, end, offset + position)
            if cut is not None and first < cut <= last and not block.is_held(position):
                cuts.append((cut, offset + position))
        return cuts

    def _cut_at(self, low: int, best: int, high: int) -> int | None:
        """Number of the last cut in [low, best], else of the first in (best, high]; None if there is none."""
        chars = self._char
        before = int(chars.searchsorted(best, side="right")) - 1
        if chars[before] >= low:
            return before
        return before + 1 if before + 1 < len(chars) and chars[before + 1] <= high else None

    def _cuts_at(self, boundaries: Boundaries) -> tuple[list[int], list[int]]:
        """(number of the cut, level) of each boundary where a cut is possible."""
        if not len(boundaries.low):
            return [], []
        chars = self._char
        before = chars.searchsorted(boundaries.best, side="right") - 1
        after = np.minimum(before + 1, len(chars) - 1)
        cuts = np.where(chars[before] >= boundaries.low, before, after)
        can_be_cut = (chars[cuts] >= boundaries.low) & (chars[cuts] <= boundaries.high)
        return cuts[can_be_cut].tolist(), boundaries.level[can_be_cut].tolist()


def _strongest(cuts: list[int], levels: list[int], first: int, last: int) -> int | None:
    """The cut with the smallest level in (first, last]; of equal ones the last; None if there is none."""
    low, high = bisect_right(cuts, first), bisect_right(cuts, last)
    if low == high:
        return None
    within = levels[low:high][::-1]
    return cuts[high - 1 - within.index(min(within))]
