"""Headings of Markdown, reStructuredText and plain text.

markdown   `# Title`, and titles underlined with = or -. Fenced code holds none.
rst        a title underlined, and maybe overlined, with one punctuation character; levels in the order of their styles.
plain      underlined titles; "CHAPTER IV.", "Book II", "Preface"; "1.2 Title"; a short line in capitals. Except for
           underlined titles, each is alone between blank lines; only a chapter's number may be followed by its title.
auto       headings of Markdown and reStructuredText, and the chapters of plain text. A run of lines that start with the
           same number of # counts as a comment, not as headings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_CANDIDATE = re.compile(r"\n(?: {0,3}(?:#{1,6}[ \t]|`{3}|~{3})|([-=~^\"'`#*+.:_<>])\1{2,}+[ \t]*+(?=\n|\Z))")
_ATX_OPENING = re.compile(r" {0,3}(#{1,6})[ \t]+")
_RULE = re.compile(r"""([-=~^"'`#*+.:_<>])\1{2,}[ \t]*""")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*\Z)|~{3,})(.*)", re.DOTALL)

_ALONE = re.compile(r"\n[^\S\n]*+\n([^\S\n]*+[^\s][^\n]{0,99}+)(?=\n|\Z)")
_PART_LEVEL = {
    **dict.fromkeys(("volume", "tome"), 1),
    **dict.fromkeys(("book", "part"), 2),
    **dict.fromkeys(("act", "chapter", "canto", "stave", "letter", "appendix"), 3),
    **dict.fromkeys(("scene", "section"), 4),
}
_ORDINALS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    "(?:the )?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last)"
)
_PART = re.compile(
    rf"(?i:({'|'.join(_PART_LEVEL)}))[ \t]+(?:\d{{1,4}}|[IVXLCDM]+|[ivxlcdm]+|[A-Z]|(?i:{_ORDINALS}))\b[.:]?"
    r"(?P<title>[ \t]*[-–—:.]*[ \t]*[^\sa-z,;].*)?"
)
_UNNUMBERED = re.compile(
    "(?i:preface|foreword|prologue|epilogue|introduction|contents|table of contents|conclusion|bibliography|glossary|"
    "acknowledge?ments|index|abstract|references|appendix)[.:]?"
)
_NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3})*)\.?[ \t]+([^\W\d_].*)")
_UNNUMBERED_LEVEL = 3
_FIRST_NUMBERED_LEVEL = 3
_CAPITALS_LEVEL = 5
_MAX_TITLE_CHARS, _MAX_CAPITALS_CHARS = 80, 60


@dataclass(frozen=True)
class Heading:
    """A section's title; `char` is the start of its first line, `end` the end of its last, `level` counts from 1."""

    char: int
    end: int
    level: int
    title: str


def find_headings(lines: str, text_format: str) -> list[Heading]:
    """Headings in the order of the text; its lines end in "\\n"."""
    found = {heading.char: heading for heading in _alone(lines, text_format)} if text_format in ("plain", "auto") else {}
    for heading in _marked(lines, text_format):
        found[heading.char] = heading
    headings = sorted(found.values(), key=lambda heading: heading.char)
    return [h for n, h in enumerate(headings) if not n or h.char >= headings[n - 1].end]


# -- Markdown and reStructuredText


def _marked(lines: str, text_format: str) -> Iterator[Heading]:
    has_atx = text_format == "markdown"
    styles: list[tuple[str, bool]] = []  # underline styles in the order they appear: reStructuredText's levels
    fence = ""
    underlined: list[tuple[int, int, str, tuple[str, bool]]] = []
    found: list[Heading] = []
    covered = 0
    for match in _CANDIDATE.finditer("\n" + lines):
        start = match.start()
        if start < covered:
            continue
        end = _line_end(lines, start)
        line = lines[start:end]
        if fence:
            closing = line.strip()
            if closing.startswith(fence) and not closing.strip(fence[0]):
                fence = ""
        elif title := _underlined(lines, start, end, text_format):
            underlined.append(title)
            covered = end
        elif text_format == "rst":
            continue
        elif opening := _FENCE.fullmatch(line):
            fence = opening[1]
        elif (atx := _atx(line)) and text_format != "plain":
            is_comment = text_format == "auto" and _is_comment_block(lines, start, end, atx[0])
            has_atx = True
            if not is_comment:
                found.append(Heading(start, _visible_end(lines, start, end), *atx))
    for char, end, title_text, style in underlined:
        if has_atx and style[0] in "=-":  # Markdown: underlined levels beside `#` levels
            level = 1 if style[0] == "=" else 2
        else:
            if style not in styles:
                styles.append(style)
            level = styles.index(style) + 1
        found.append(Heading(char, end, level, title_text))
    yield from found


def _line_end(lines: str, start: int) -> int:
    end = lines.find("\n", start)
    return end if end >= 0 else len(lines)


def _line_before(lines: str, start: int) -> tuple[int, str] | None:
    """(start, text) of the line that ends in front of `start`."""
    if not start:
        return None
    before = lines.rfind("\n", 0, start - 1) + 1
    return before, lines[before : start - 1]


def _visible_end(lines: str, start: int, end: int) -> int:
    return start + len(lines[start:end].rstrip())


def _underlined(lines: str, start: int, end: int, text_format: str) -> tuple[int, int, str, tuple[str, bool]] | None:
    """(start, end, title, (character, is overlined)) of a heading whose underline is the line [start, end)."""
    underline = _RULE.fullmatch(lines, start, end)
    title_line = _line_before(lines, start)
    if not underline or not title_line or (text_format == "markdown" and underline[1] not in "=-"):
        return None
    title_start, line = title_line
    title = line.strip()
    if not any(c.isalnum() for c in title) or len(line) - len(line.lstrip()) > 3 or _atx(line):
        return None
    length = len(underline[0].strip())
    visible_end = start + length
    above = _line_before(lines, title_start)
    if above is None or not above[1].strip():
        is_heading = underline[1] in "=-" or length >= len(title)
        return (title_start, visible_end, title, (underline[1], False)) if is_heading else None
    first = _line_before(lines, above[0])
    is_overlined = above[1].strip() == underline[0].strip() and _RULE.fullmatch(above[1]) is not None
    if is_overlined and length >= len(title) and (first is None or not first[1].strip()):
        return above[0], visible_end, title, (underline[1], True)
    return None


def _atx(line: str) -> tuple[int, str] | None:
    """(level, title) of a line such as `## Title ##`."""
    if "#" not in line[:4] or not (opening := _ATX_OPENING.match(line)):
        return None
    title = line[opening.end() :].strip()
    unclosed = title.rstrip("#")
    if not unclosed or unclosed[-1] in " \t":
        title = unclosed.rstrip()
    return (len(opening[1]), title) if title else None


def _is_comment_block(lines: str, start: int, end: int, level: int) -> bool:
    before = _line_before(lines, start)
    after = lines[end + 1 : _line_end(lines, end + 1)] if end < len(lines) else ""
    neighbours = (_atx(before[1]) if before else None, _atx(after))
    return any(atx is not None and atx[0] == level for atx in neighbours)


# -- plain text


def _alone(lines: str, text_format: str) -> Iterator[Heading]:
    """Titles without mark-up, recognised because they are alone on a line between blank lines."""
    numbered: list[Heading] = []
    has_depth = False
    for match in _ALONE.finditer("\n\n" + lines):
        start, end = match.start(1) - 2, match.end(1) - 2
        line = match[1].strip()
        if not (line[0].isupper() or line[0].isdigit()):
            continue
        is_alone = not lines[end + 1 : _line_end(lines, end + 1)].strip()
        if part := _PART.fullmatch(line):
            if len(line) <= _MAX_TITLE_CHARS and (is_alone or not part["title"]):
                yield _heading(lines, start, end, _PART_LEVEL[part[1].lower()], line)
        elif not is_alone or text_format == "auto" or len(line) > _MAX_TITLE_CHARS:
            continue
        elif _UNNUMBERED.fullmatch(line):
            yield _heading(lines, start, end, _UNNUMBERED_LEVEL, line)
        elif (number := _NUMBERED.fullmatch(line)) and number[2][0].isupper() and line[-1] not in ".,;:":
            depth = number[1].count(".")
            has_depth |= depth > 0
            numbered.append(_heading(lines, start, end, _FIRST_NUMBERED_LEVEL + depth, line))
        elif _is_in_capitals(line):
            yield _heading(lines, start, end, _CAPITALS_LEVEL, line)
    if has_depth:  # "1 Title" by itself could be an item of a list
        yield from numbered


def _heading(lines: str, start: int, end: int, level: int, title: str) -> Heading:
    return Heading(start, _visible_end(lines, start, end), level, title)


def _is_in_capitals(line: str) -> bool:
    if not line.isupper() or len(line) > _MAX_CAPITALS_CHARS:
        return False
    letters = sum(c.isalpha() for c in line)
    return letters >= 4 and letters >= 0.7 * len(line.replace(" ", "")) and line[-1] not in ",;:"
