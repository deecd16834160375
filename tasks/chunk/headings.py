"""Headings of Markdown, reStructuredText, LaTeX and plain text.

markdown   `# Title`, and titles underlined with = or -: a paragraph of one line or several, of at most 200 characters.
rst        a title underlined, and maybe overlined, with one punctuation character; levels in the order of their styles.
plain      underlined titles; "CHAPTER IV.", "Kapitel 3", "第一章", "Preface"; "1.2 Title"; a short line in capitals: see
           `tasks.chunk.chapters`. Except for underlined titles, each is alone between blank lines; only a chapter's number may be
           followed by its title.
auto       headings of Markdown and reStructuredText, and the chapters of plain text. A run of lines that start with the
           same number of # counts as a comment, not as headings.

`\\section{Title}` and its like are headings in all of them. Fenced code and HTML comments hold none, and an item of a list or a
row of a table is never underlined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.chunk.chapters import MAX_TITLE_CHARS, are_sections, numbered_level, numbering, part_level, unnumbered_level
from tasks.chunk.lines import is_table_row

_CANDIDATE = re.compile(
    r"\n(?: {0,3}(?:#{1,6}[ \t]|`{3}|~{3}|<!--|=+[ \t]*+(?=\n|\Z)|-+[ \t]*+(?=\n|\Z))|([-=~^\"'`#*+.:_<>])\1{2,}+[ \t]*+(?=\n|\Z)"
    r"|[ \t]*+\\(?=(?:part|chapter|(?:sub){0,2}section|paragraph)\b|(?:begin|end)\{(?:verbatim|lstlisting|minted)))"
)
_ATX_OPENING = re.compile(r" {0,3}(#{1,6})[ \t]+")
_RULE = re.compile(r"""([-=~^"'`#*+.:_<>])\1{2,}[ \t]*""")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*\Z)|~{3,})(.*)", re.DOTALL)
_NO_TITLE = re.compile(
    r" {0,3}(?:[-*+•][ \t]|\d{1,9}[.)][ \t]|>|#{1,6}(?:[ \t]|\Z)|`{3}|~{3}|<!--|(?:[-*_][ \t]*){3,}\Z|=+[ \t]*\Z|-+[ \t]*\Z)"
)
_LATEX = re.compile(
    r"[ \t]*\\(part|chapter|section|subsection|subsubsection|paragraph)\*?[ \t]*(?:\[[^\]\n]*\])?[ \t]*\{(.*)", re.DOTALL
)
_LATEX_LEVEL = {"part": 1, "chapter": 2, "section": 3, "subsection": 4, "subsubsection": 5, "paragraph": 6}
_VERBATIM = re.compile(r"[ \t]*\\begin\{(verbatim|lstlisting|minted)")
_ALONE = re.compile(r"\n[^\S\n]*+\n([^\S\n]*+[^\s][^\n]{0,99}+)(?=\n|\Z)")
_CAPITALS_LEVEL = 5
_MAX_CAPITALS_CHARS, _MAX_SETEXT_CHARS = 60, 200


@dataclass(frozen=True)
class Heading:
    """A section's title; `char` is the start of its first line, `end` the end of its last, `level` counts from 1."""

    char: int
    end: int
    level: int
    title: str


def find_headings(lines: str, text_format: str) -> tuple[list[Heading], list[tuple[int, int]]]:
    """Headings, and the (first character, end) of fenced code, in the order of the text; its lines end in "\\n"."""
    found = {heading.char: heading for heading in _alone(lines, text_format)} if text_format in ("plain", "auto") else {}
    marked = _Marked(lines, text_format)
    for heading in marked.headings():
        found[heading.char] = heading
    headings = sorted(found.values(), key=lambda heading: heading.char)
    headings = [h for n, h in enumerate(headings) if not n or h.char >= headings[n - 1].end]
    return _outside(headings, marked.fences), marked.fences


def _outside(headings: list[Heading], fences: list[tuple[int, int]]) -> list[Heading]:
    if not fences:
        return headings
    kept, number = [], 0
    for heading in headings:
        while number < len(fences) and fences[number][1] <= heading.char:
            number += 1
        if number == len(fences) or heading.char < fences[number][0]:
            kept.append(heading)
    return kept


class _Marked:
    """Headings with mark-up, and fences, of one text."""

    def __init__(self, lines: str, text_format: str) -> None:
        self._lines = lines
        self._format = text_format
        self.fences: list[tuple[int, int]] = []
        self._missing: set[str] = set()  # what was not found behind some place, so that no search is made twice

    def _find(self, wanted: str, start: int) -> int:
        """Where `wanted` is at or after `start`; -1 if nowhere."""
        found = -1 if wanted in self._missing else self._lines.find(wanted, start)
        if found < 0:
            self._missing.add(wanted)
        return found

    def headings(self) -> list[Heading]:
        """Headings in no particular order; fills `fences`."""
        lines, text_format = self._lines, self._format
        has_atx = text_format == "markdown"
        underlined: list[tuple[int, int, str, tuple[str, bool]]] = []
        found: list[Heading] = []
        fence, fence_start = "", 0
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
                    self.fences.append((fence_start, end))
                    fence = ""
            elif line.lstrip(" \t").startswith("\\"):
                covered = self._latex(start, end, line, found)
            elif title := self._underlined(start, end):
                underlined.append(title)
                covered = end
            elif text_format == "rst":
                continue
            elif line.lstrip().startswith("<!--"):
                covered = max(self._find("-->", start), end) if text_format != "plain" else end
            elif opening := _FENCE.fullmatch(line):
                fence, fence_start = opening[1], start
            elif (atx := _atx(line)) and text_format != "plain":
                is_comment = text_format == "auto" and _is_comment_block(lines, start, end, atx[0])
                has_atx = True
                if not is_comment:
                    found.append(Heading(start, _visible_end(lines, start, end), *atx))
        if fence:
            self.fences.append((fence_start, len(lines)))
        return found + _with_levels(underlined, has_atx)

    def _latex(self, start: int, end: int, line: str, found: list[Heading]) -> int:
        """Adds the heading or the fence that begins with this line; returns the end of what is read."""
        lines = self._lines
        if verbatim := _VERBATIM.match(line):
            closing = self._find(f"\\end{{{verbatim[1]}", end)
            if closing < 0:
                return end
            end = _line_end(lines, closing)
            self.fences.append((start, end))
        elif heading := _LATEX.fullmatch(line):
            title = _in_braces(heading[2])
            if title:
                found.append(Heading(start, _visible_end(lines, start, end), _LATEX_LEVEL[heading[1]], title))
        return end

    def _underlined(self, start: int, end: int) -> tuple[int, int, str, tuple[str, bool]] | None:
        """(start, end, title, (character, is overlined)) of a heading whose underline is the line [start, end)."""
        lines, text_format = self._lines, self._format
        title_line = _line_before(lines, start)
        if not title_line:
            return None
        if text_format == "markdown":
            return self._setext(start, end)
        underline = _RULE.fullmatch(lines, start, end)
        title_start, line = title_line
        title = line.strip()
        if not underline or not any(c.isalnum() for c in title) or len(line) - len(line.lstrip()) > 3:
            return None
        if (
            _atx(line)
            or (_NO_TITLE.match(line) and text_format != "rst" and not line[:1].isdigit())
            or "\t" in title
            or title[0] == "|"
        ):
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

    def _setext(self, start: int, end: int) -> tuple[int, int, str, tuple[str, bool]] | None:
        """The same for Markdown: the whole paragraph above the line is the title."""
        lines = self._lines
        underline = _SETEXT.fullmatch(lines, start, end)
        parts: list[str] = []
        position, num_chars = start, 0
        while underline and (before := _line_before(lines, position)) and before[1].strip():
            above = _line_before(lines, before[0])
            is_first = above is None or not above[1].strip()
            if _NO_TITLE.match(before[1]):
                if parts and (_atx(before[1]) or _SETEXT.fullmatch(before[1])):
                    break  # the paragraph starts below a heading or a rule
                return None
            is_indented = before[1].startswith(("    ", "\t"))
            if (is_first and is_indented) or is_table_row(before[1]):
                return None
            parts.append(before[1].strip())
            num_chars += len(before[1])
            if num_chars > _MAX_SETEXT_CHARS:
                return None
            position = before[0]
        title = " ".join(reversed(parts))
        if underline is None or not any(c.isalnum() for c in title):
            return None
        return position, _visible_end(lines, start, end), title, (underline[1][0], False)


def _with_levels(underlined: list[tuple[int, int, str, tuple[str, bool]]], has_atx: bool) -> list[Heading]:
    styles: list[tuple[str, bool]] = []  # underline styles in the order they appear: reStructuredText's levels
    found = []
    for char, end, title, style in underlined:
        if has_atx and style[0] in "=-":  # Markdown: underlined levels beside `#` levels
            level = 1 if style[0] == "=" else 2
        else:
            if style not in styles:
                styles.append(style)
            level = styles.index(style) + 1
        found.append(Heading(char, end, level, title))
    return found


def _in_braces(text: str) -> str:
    """`text` up to the brace that closes it."""
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return text[:position].strip()
    return text.strip()


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


def _alone(lines: str, text_format: str) -> Iterator[Heading]:
    """Titles without mark-up, recognised because they are alone on a line between blank lines."""
    numbered: list[tuple[tuple[str, str], Heading]] = []
    for match in _ALONE.finditer("\n\n" + lines):
        start, end = match.start(1) - 2, match.end(1) - 2
        line = match[1].strip()
        if line[0].islower() or not line[0].isalnum():
            continue
        is_alone = not lines[end + 1 : _line_end(lines, end + 1)].strip()
        if level := part_level(line, is_alone):
            yield _heading(lines, start, end, level, line)
        elif not is_alone or len(line) > MAX_TITLE_CHARS:
            continue
        elif number := numbering(line):
            numbered.append((number, _heading(lines, start, end, numbered_level(number[0]), line)))
        elif text_format == "auto":
            continue
        elif level := unnumbered_level(line):
            yield _heading(lines, start, end, level, line)
        elif _is_in_capitals(line):
            yield _heading(lines, start, end, _CAPITALS_LEVEL, line)
    if not numbered:
        return
    ends = [*(heading.char for _, heading in numbered[1:]), len(lines)]
    sizes = [_visible_size(lines, heading.end, end) for (_, heading), end in zip(numbered, ends, strict=True)]
    if are_sections([number for number, _ in numbered], sizes, text_format == "plain"):
        yield from (heading for _, heading in numbered)


def _visible_size(lines: str, start: int, end: int) -> int:
    return len(lines[start:end].strip())


def _heading(lines: str, start: int, end: int, level: int, title: str) -> Heading:
    return Heading(start, _visible_end(lines, start, end), level, title)


def _is_in_capitals(line: str) -> bool:
    if not line.isupper() or len(line) > _MAX_CAPITALS_CHARS:
        return False
    letters = sum(c.isalpha() for c in line)
    return letters >= 4 and letters >= 0.7 * len(line.replace(" ", "")) and line[-1] not in ",;:"
