"""The structure of a text, where it is best cut: sections, blocks, definitions.

How structure is marked depends on the format (`data_schemas.tables.TEXT_FORMATS`): see `tasks.chunk.headings` for
prose and `tasks.chunk.definitions` for program text. In every format, blank lines separate blocks. A fence is a block, blank
lines and all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from tasks.chunk.definitions import find_definitions, inside
from tasks.chunk.format_guess import guess_format
from tasks.chunk.headings import Heading, find_headings

NUM_HEADING_LEVELS = 6
PARAGRAPH = NUM_HEADING_LEVELS + 1  # and every other block

_BLANK_LINES = re.compile(r"\n[^\S\n]*+\n\s*+")


@dataclass(frozen=True)
class Boundaries:
    """Places to cut, in the order of the text: in the white space [low, high], at or before `best` if possible, else after
    it. int64 [num_boundaries] each.

    A smaller `level` is a stronger boundary: heading levels 1 to 6, then PARAGRAPH.
    """

    low: np.ndarray
    best: np.ndarray
    high: np.ndarray
    level: np.ndarray


@dataclass(frozen=True)
class Structure:
    """Headings and boundaries of a text. `is_code`: if no boundary is in reach, cut at a line rather than a sentence.

    `lines` is the text with "\\n" for every line end; `fences` are the (first character, end) of fenced code.
    """

    headings: tuple[Heading, ...]
    boundaries: Boundaries
    is_code: bool
    lines: str
    fences: tuple[tuple[int, int], ...] = ()

    def heading_paths(self) -> tuple[tuple[str, ...], ...]:
        """For each heading the titles of the sections it lies in, its own last."""
        open_sections: list[Heading] = []
        paths = []
        for heading in self.headings:
            while open_sections and open_sections[-1].level >= heading.level:
                open_sections.pop()
            open_sections.append(heading)
            paths.append(tuple(h.title for h in open_sections))
        return tuple(paths)


def find_structure(text: str, text_format: str = "auto") -> Structure:
    """Headings or definitions, and the boundaries in front of them and of paragraphs.

    A heading stays with what follows it: there is no boundary between a heading and its first paragraph, nor between
    a heading and a deeper one right under it.
    """
    lines = with_newlines(text)
    if text_format == "auto":
        text_format = guess_format(lines)
    if text_format in ("python", "code"):
        starts = find_definitions(lines, text_format)
        return Structure((), _merged(lines, _paragraphs(lines), starts), True, lines)
    headings, fences = find_headings(lines, text_format)
    paragraphs = _paragraphs(lines)
    starts = _section_starts(lines, headings)
    if fences:
        paragraphs = _selected(paragraphs, ~inside(fences, paragraphs.best))
        edges = {char for start, end in fences for char in (start, end + 1) if char < len(lines)}
        starts = sorted({**dict.fromkeys(edges, PARAGRAPH), **dict(starts)}.items())
    boundaries = _merged(lines, paragraphs, starts)
    if headings:
        boundaries = _selected(
            boundaries, ~_is_among(boundaries.low, np.array([h.end for h in headings])) | (boundaries.level < PARAGRAPH)
        )
    return Structure(tuple(headings), boundaries, False, lines, tuple(fences))


def with_newlines(text: str) -> str:
    """`text` with "\\n" for every line end and each character at its old place: "\\r\\n" becomes a space and "\\n"."""
    return text.replace("\r\n", " \n").replace("\r", "\n") if "\r" in text else text


def _paragraphs(lines: str) -> Boundaries:
    spans = [match.span() for match in _BLANK_LINES.finditer(lines)]
    if spans and spans[-1][1] == len(lines):
        spans.pop()
    low = [content_end(lines, start) for start, _ in spans]
    if low and not low[0]:
        del low[0], spans[0]
    best = [lines.rfind("\n", start, end) + 1 for start, end in spans]
    high = [end for _, end in spans]
    return Boundaries(*(np.array(column, np.int64) for column in (low, best, high, [PARAGRAPH] * len(low))))


def content_end(lines: str, position: int, at_least: int = 0) -> int:
    """The end of the last visible character before `position`, but at least `at_least` (and 0)."""
    at_least = max(0, at_least)
    while position > at_least and lines[position - 1].isspace():
        position -= 1
    return position


def _section_starts(lines: str, headings: list[Heading]) -> list[tuple[int, int]]:
    """(line start, level) of the headings before which a cut is possible."""
    starts = []
    before: Heading | None = None
    for heading in headings:
        is_right_under = before is not None and not lines[before.end : heading.char].strip()
        if not is_right_under or before is None or heading.level <= before.level:
            starts.append((heading.char, min(heading.level, NUM_HEADING_LEVELS)))
        before = heading
    return starts


def _merged(lines: str, paragraphs: Boundaries, starts: list[tuple[int, int]]) -> Boundaries:
    """`paragraphs` and the stronger boundaries in front of the lines that begin at `starts`."""
    rows = []
    for char, level in starts:
        low = content_end(lines, char)
        if low:
            rows.append((low, char, first_visible(lines, char), level))
    if not rows:
        return paragraphs
    stronger = np.array(rows, np.int64).T
    weaker = _selected(paragraphs, ~_is_among(paragraphs.high, np.sort(stronger[2])))
    columns = [
        np.concatenate([a, b]) for a, b in zip((weaker.low, weaker.best, weaker.high, weaker.level), stronger, strict=True)
    ]
    order = np.argsort(columns[2], kind="stable")
    return Boundaries(*(column[order] for column in columns))


def first_visible(lines: str, position: int, at_most: int | None = None) -> int:
    """The first visible character at or after `position`; `at_most` (or the text's end) if there is none before."""
    end = len(lines) if at_most is None else min(at_most, len(lines))
    while position < end and lines[position].isspace():
        position += 1
    return position


def _is_among(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each of `values` is in `wanted`, which increases and is not empty; bool [num_values]."""
    return wanted[np.minimum(wanted.searchsorted(values), len(wanted) - 1)] == values


def _selected(boundaries: Boundaries, mask: np.ndarray) -> Boundaries:
    return Boundaries(boundaries.low[mask], boundaries.best[mask], boundaries.high[mask], boundaries.level[mask])
