"""Headings and paragraphs of a text: where an author would let it be cut.

Headings are Markdown's (ATX `# Title`, setext underlines) and reStructuredText's (a title underlined, and maybe
overlined, with one punctuation character). Two conventions keep program text from being mistaken for headings: fenced
code holds none, and a run of lines that start with the same number of `#` is a comment block.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

NUM_HEADING_LEVELS = 6
PARAGRAPH = NUM_HEADING_LEVELS + 1
SENTENCE = PARAGRAPH + 1

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_ATX_OPENING = re.compile(r" {0,3}(#{1,6})[ \t]+")
_RULE = re.compile(r"""([-=~^"'`#*+.:_<>])\1{2,}[ \t]*""")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*\Z)|~{3,})(.*)", re.DOTALL)


@dataclass(frozen=True)
class Heading:
    """A section's title; `char` is the start of its first line, `level` counts from 1."""

    char: int
    level: int
    title: str


@dataclass(frozen=True)
class Boundary:
    """The text may be cut in the white space [low, high], at or before `best` if possible, else after it.

    A smaller `level` is a stronger boundary: heading levels 1 to 6, then PARAGRAPH, then SENTENCE.
    """

    low: int
    best: int
    high: int
    level: int


@dataclass(frozen=True)
class Structure:
    """Headings and boundaries of a text, each in the order of the text."""

    headings: tuple[Heading, ...]
    boundaries: tuple[Boundary, ...]

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


class _Line(NamedTuple):
    start: int
    text: str  # without the line end

    @property
    def is_blank(self) -> bool:
        return not self.text or self.text.isspace()

    @property
    def indentation(self) -> int:
        return len(self.text) - len(self.text.lstrip())

    @property
    def atx(self) -> tuple[int, str] | None:
        """(level, title) of a line such as `## Title ##`."""
        if "#" not in self.text[:4] or not (opening := _ATX_OPENING.match(self.text)):
            return None
        title = self.text[opening.end() :].strip()
        unclosed = title.rstrip("#")
        if not unclosed or unclosed[-1] in " \t":
            title = unclosed.rstrip()
        return (len(opening[1]), title) if title else None


def find_structure(text: str) -> Structure:
    """Headings, and the boundaries in front of headings and of paragraphs.

    A heading stays with what follows it: there is no boundary between a heading and its first paragraph, nor between
    a heading and a deeper one right under it.
    """
    lines = [_Line(m.start(), m.group().rstrip("\r\n")) for m in _LINE.finditer(text) if m.group()]
    heading_at = dict(_headings(lines))
    boundaries: list[Boundary] = []
    content_end = 0
    is_after_blank = False
    heading, heading_end = None, -1  # the last heading and its last line
    last_visible = -1
    for i, line in enumerate(lines):
        if line.is_blank:
            is_after_blank = True
            continue
        starts_heading = i in heading_at
        is_under_heading = heading is not None and last_visible <= heading_end
        if starts_heading:
            level = heading_at[i][0].level
            is_cut = not is_under_heading or heading is None or level <= heading.level
            heading, heading_end = heading_at[i][0], i + heading_at[i][1] - 1
        else:
            level, is_cut = PARAGRAPH, is_after_blank and not is_under_heading
        if content_end and is_cut:
            high = line.start + line.indentation
            boundaries.append(
                Boundary(content_end, line.start, high, min(level, NUM_HEADING_LEVELS) if starts_heading else level)
            )
        is_after_blank = False
        last_visible = i
        content_end = line.start + len(line.text.rstrip())
    return Structure(tuple(heading for heading, _ in heading_at.values()), tuple(boundaries))


def _headings(lines: list[_Line]) -> Iterator[tuple[int, tuple[Heading, int]]]:
    """(index of its first line, (heading, number of lines)) of each heading."""
    has_atx = any(line.atx for line in lines)
    styles: list[tuple[str, bool]] = []  # underline styles in the order they appear: reStructuredText's levels
    fence = ""
    i = 0
    while i < len(lines):
        line = lines[i]
        if fence:
            closing = line.text.strip()
            if closing.startswith(fence) and not closing.strip(fence[0]):
                fence = ""
        elif underlined := _underlined(lines, i):
            title, character, is_overlined, num_lines = underlined
            level = _underline_level((character, is_overlined), styles, has_atx)
            yield i, (Heading(line.start, level, title), num_lines)
            i += num_lines - 1
        elif opening := _FENCE.fullmatch(line.text):
            fence = opening[1]
        elif (atx := line.atx) and not _is_comment_block(lines, i, atx[0]):
            yield i, (Heading(line.start, *atx), 1)
        i += 1


def _underlined(lines: list[_Line], i: int) -> tuple[str, str, bool, int] | None:
    """(title, underline character, is overlined, number of lines) of an underlined heading starting at line `i`."""
    if i > 0 and not lines[i - 1].is_blank:
        return None
    overline = _RULE.fullmatch(lines[i].text)
    title_at = i + 1 if overline else i
    if title_at + 1 >= len(lines):
        return None
    title = lines[title_at].text.strip()
    underline = _RULE.fullmatch(lines[title_at + 1].text)
    if not underline or lines[title_at].indentation > 3 or lines[title_at].atx or not any(c.isalnum() for c in title):
        return None
    length = len(underline.group().strip())
    if overline:
        is_heading = overline.group().strip() == underline.group().strip() and length >= len(title)
    else:
        is_heading = underline[1] in "=-" or length >= len(title)
    return (title, underline[1], overline is not None, 3 if overline else 2) if is_heading else None


def _underline_level(style: tuple[str, bool], styles: list[tuple[str, bool]], has_atx: bool) -> int:
    if has_atx and style[0] in "=-":  # Markdown: setext levels beside `#` levels
        return 1 if style[0] == "=" else 2
    if style not in styles:
        styles.append(style)
    return styles.index(style) + 1


def _is_comment_block(lines: list[_Line], i: int, level: int) -> bool:
    neighbours = (lines[j].atx for j in (i - 1, i + 1) if 0 <= j < len(lines))
    return any(atx is not None and atx[0] == level for atx in neighbours)
