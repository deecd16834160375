"""The blocks of a document (paragraphs, lists, tables, fences), looked into only where one has to be cut."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from tasks.chunk.lines import Habit, habit_of, is_numbered_title, line_starts
from tasks.chunk.structure import PARAGRAPH, Boundaries, Structure, content_end, first_visible

LINE = PARAGRAPH + 1
_MAX_TITLE_CHARS = 80


@dataclass(frozen=True)
class Block:
    """Text between two cuts at the edges of a block.

    first, last   numbers of the cuts
    start         first character in the document
    text          its lines, with "\\n" for every line end
    body          first visible character behind the headings that it begins with, in `text`
    lines         places to cut at lines, in the document: level PARAGRAPH where a table or quotation starts or ends, LINE,
                  or LINE + 1 in a table's head
    tables        (first character, end) of tables, in `text`
    """

    first: int
    last: int
    start: int
    text: str
    body: int
    lines: Boundaries
    tables: tuple[tuple[int, int], ...]
    is_fence: bool
    has_sentences: bool

    def is_in_table(self, char: int) -> bool:
        """Whether a character of the document is in a row of a table."""
        position = char - self.start
        number = bisect_right(self.tables, (position, len(self.text) + 1)) - 1
        return number >= 0 and position < self.tables[number][1]

    def is_held(self, position: int) -> bool:
        """Whether the text at `position` starts no sentence: in a table, or right after a title such as "1. OBLIGATIONS."."""
        return self.is_in_table(self.start + position) or self._is_below_title(position)

    def _is_below_title(self, position: int) -> bool:
        start = max(self.body, self.text.rfind("\n", max(0, position - _MAX_TITLE_CHARS), max(0, position - 1)) + 1)
        return position - start <= _MAX_TITLE_CHARS and is_numbered_title(self.text[start:position].strip())


class Document:
    """Gives the blocks of a text with this structure."""

    def __init__(self, structure: Structure) -> None:
        self.lines = structure.lines
        self._is_code = structure.is_code
        self._heading_starts = [heading.char for heading in structure.headings]
        self._heading_ends = [heading.end for heading in structure.headings]
        self._fences = structure.fences
        self._found_habit: Habit | None = None

    def block(self, first: int, last: int, start: int, end: int) -> Block:
        """The block between the cuts `first` and `last`, which are at the characters `start` and `end`."""
        text = self.lines[start:end]
        body = first_visible(text, self._head(start, end))
        is_fence = self._is_fence(start + body)
        tables: list[tuple[int, int]] = []
        if self._is_code or is_fence:
            found = _all_lines(text, is_fence)
        else:
            starts, in_body = line_starts(text[body:], self._habit)
            found = [(body + char, PARAGRAPH + level) for char, level in starts]
            tables = [(body + first, body + last) for first, last in in_body]
        lines = self._boundaries(text, start, found)
        has_sentences = not (self._is_code or is_fence)
        return Block(first, last, start, text, body, lines, tuple(tables), is_fence, has_sentences)

    @staticmethod
    def _boundaries(text: str, start: int, found: list[tuple[int, int]]) -> Boundaries:
        """Places to cut before the lines that begin at (character of `text`, level)."""
        rows = []
        for char, level in found:
            low = char - 1 if char > 1 and not text[char - 2].isspace() else content_end(text, char)
            high = first_visible(text, char) if text[char].isspace() else char
            if low:
                rows.append((start + low, start + char, start + high, level))
        return Boundaries(*np.array(rows, np.int64).reshape(-1, 4).T)

    def _habit(self) -> Habit:
        self._found_habit = self._found_habit or habit_of(self.lines)
        return self._found_habit

    def _head(self, start: int, end: int) -> int:
        """Where the headings at the start of a block end, counted from `start`."""
        number = bisect_right(self._heading_starts, end - 1) - 1
        return max(0, self._heading_ends[number] - start) if number >= 0 and self._heading_ends[number] <= end else 0

    def _is_fence(self, char: int) -> bool:
        number = bisect_right(self._fences, (char, len(self.lines) + 1)) - 1
        return number >= 0 and self._fences[number][0] <= char < self._fences[number][1]


def _all_lines(text: str, has_gaps: bool) -> list[tuple[int, int]]:
    """(first character, level) of every line but the first; with `has_gaps`, those after a blank line are stronger."""
    starts, position, gap = [], 0, False
    while (position := text.find("\n", position) + 1) > 0 and position < len(text):
        line_end = text.find("\n", position)
        line = text[position : line_end if line_end >= 0 else len(text)]
        if line.strip():
            starts.append((position, LINE - 1 if gap and has_gaps else LINE))
            gap = False
        else:
            gap = True
    return starts
