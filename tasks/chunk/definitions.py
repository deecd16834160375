"""Definitions in program text: the start of functions, classes and their members.

Python's are found by keyword, outside of multi-line strings; decorators and comment lines right above belong to the
definition. In other languages a definition is a line at the left margin, followed by a block, that opens with a keyword or
follows a blank line or a closing brace; doc comments and attributes above belong to it. Nothing is parsed, so invalid code
only gets less precise boundaries.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

TOP_LEVEL, MEMBER, NESTED = 1, 2, 3

_PY_PLAIN = re.compile(r"""(?:[^"'#\n]++|"(?!"")(?:[^"\\\n]|\\.)*+"|'(?!'')(?:[^'\\\n]|\\.)*+')*+""")
_PY_SHORT = re.compile(r""""(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'""")
_PY_REST = {
    '"""': re.compile(r'(?:[^"\\]++|\\.|"(?!""))*+"{3}', re.DOTALL),
    "'''": re.compile(r"(?:[^'\\]++|\\.|'(?!''))*+'{3}", re.DOTALL),
}
_PY_DEFINITION = re.compile(r"\n([ \t]*+)(@|(?:async[ \t]+)?def\b|class\b)")
_MAX_INDENTATION = 200
_KEYWORDS = (
    "abstract|actor|async|class|const|constexpr|data|def|defmodule|defp|enum|export|extension|extern|final|fn|fun|func|"
    "function|impl|import|inline|interface|internal|let|macro_rules!|mod|module|namespace|object|open|override|package|private|"
    "procedure|protected|protocol|public|pub|record|sealed|static|struct|sub|template|trait|type|typedef|union|unsafe|"
    "using|val|var|virtual|void"
)
_CODE_DEFINITION = re.compile(rf"\n(?:([ \t]*+)(?:{_KEYWORDS})\b[^\n;]*+(?!;)|([A-Za-z_(][^\n;]*+(?!;)(?=\n)))")
_COMMENT_LINE = {"python": ("#",), "code": ("//", "/*", " *", "*/", "#", "@", "--", ";;", "template", "///", "%")}


def find_definitions(lines: str, text_format: str) -> list[tuple[int, int]]:
    """(line start, level) of each definition, in order; level 1 at the left margin, 2 for members, 3 for deeper ones.

    The first member of a class is left out, so the class stays together with it. `lines` has "\\n" for every line end; `text_format` is
    python or code.
    """
    found = _python(lines) if text_format == "python" else _code(lines)
    member = min((d.indentation for d in found if d.indentation), default=0)
    starts: list[tuple[int, int]] = []
    before: _Definition | None = None
    for definition in found:
        first = _with_comments(lines, definition.start, text_format, before.line + 1 if before else 0)
        indentation = definition.indentation
        if not (before and indentation > before.indentation and _is_right_below(lines, before.line, first)):
            starts.append((first, TOP_LEVEL if not indentation else MEMBER if indentation <= member else NESTED))
        before = definition
    return starts


class _Definition(NamedTuple):
    start: int  # of its first line, with decorators
    line: int  # start of the line with the keyword
    indentation: int


def _is_right_below(lines: str, line: int, start: int) -> bool:
    """Whether nothing but white space stands between the line that begins at `line` and `start`."""
    end = lines.find("\n", line, start)
    return end < 0 or not lines[end:start].strip()


def _python(lines: str) -> list[_Definition]:
    strings = _multiline_strings(lines)
    found: list[_Definition] = []
    decorated: tuple[int, int] | None = None  # where the decorators of the next definition start
    matches = [(m.start(), len(m[1].expandtabs()), m[2] == "@") for m in _PY_DEFINITION.finditer("\n" + lines)]
    hidden = inside(strings, np.array([start for start, _, _ in matches], np.int64))
    for (line, indentation, is_decorator), is_hidden in zip(matches, hidden.tolist(), strict=True):
        if is_hidden:
            continue
        if is_decorator:
            decorated = decorated or (line, indentation)
            continue
        is_decorated = decorated is not None and decorated[1] == indentation
        found.append(_Definition(decorated[0] if decorated and is_decorated else line, line, indentation))
        decorated = None
    return found


def _multiline_strings(lines: str) -> list[tuple[int, int]]:
    """Spans of triple-quoted strings, ignoring quotes in comments and in other strings."""
    found: list[tuple[int, int]] = []
    position = known = 0  # the text before `known` has been scanned
    after = {quotes: lines.find(quotes) for quotes in _PY_REST}
    while True:
        for quotes, start in after.items():
            if 0 <= start < position:
                after[quotes] = lines.find(quotes, position)
        start, quotes = min(((start, quotes) for quotes, start in after.items() if start >= 0), default=(-1, ""))
        if start < 0:
            return found
        plain = _PY_PLAIN.match(lines, max(known, lines.rfind("\n", known, start) + 1), start)
        plain_end = plain.end() if plain else start
        if plain_end == start:
            rest = _PY_REST[quotes].match(lines, start + 3)
            position = rest.end() if rest else len(lines)
            found.append((start, position))
        elif lines[plain_end] != "#" and (short := _PY_SHORT.match(lines, plain_end)):
            position = max(short.end(), plain_end + 1)
        else:  # a comment, or a string that is not closed
            line_end = lines.find("\n", start)
            position = line_end if line_end >= 0 else len(lines)
        known = position


def _code(lines: str) -> list[_Definition]:
    found = []
    for match in _CODE_DEFINITION.finditer("\n" + lines):
        start = match.start()
        indentation = len((match[1] or "").expandtabs())
        if match[2] is not None or indentation:
            before = lines[lines.rfind("\n", 0, max(start - 1, 0)) + 1 : max(start - 1, 0)].strip()
            if before and before[0] not in "})]" and not before.startswith(_COMMENT_LINE["code"]):
                continue
        if match[2] is not None and not _opens_block(lines, start):
            continue
        found.append(_Definition(start, start, indentation))
    hidden = inside(_block_comments(lines), np.array([d.start for d in found], np.int64))
    return [d for d, is_hidden in zip(found, hidden.tolist(), strict=True) if not is_hidden]


def _block_comments(lines: str) -> list[tuple[int, int]]:
    """Spans of `/* ... */`; one that is never closed hides nothing, as in a list of globs."""
    found = []
    end = 0
    while (start := lines.find("/*", end)) >= 0 and (closing := lines.find("*/", start + 2)) >= 0:
        end = closing + 2
        found.append((start, end))
    return found


def _opens_block(lines: str, start: int) -> bool:
    """Whether the line that begins at `start` ends in an opening brace, or what follows is indented or a brace."""
    end = lines.find("\n", start)
    if end < 0:
        return False
    return lines[start:end].rstrip().endswith(("{", "(", "=", ":")) or lines[end + 1 : end + 2] in ("{", " ", "\t")


def inside(spans: list[tuple[int, int]], positions: np.ndarray) -> np.ndarray:
    """Whether each of `positions`, int64 [n], lies inside one of the `spans`, after its first character; bool [n]."""
    if not spans:
        return np.zeros(len(positions), bool)
    starts, ends = np.array(spans, np.int64).T
    before = np.searchsorted(starts, positions, side="left") - 1
    return (before >= 0) & (positions < ends[before])


def _with_comments(lines: str, start: int, text_format: str, at_least: int) -> int:
    """`start`, moved up over the comment lines right above that are indented alike."""
    opening = lines[start : start + _MAX_INDENTATION]
    indentation = opening[: len(opening) - len(opening.lstrip(" \t"))]
    while start > at_least:
        above = lines.rfind("\n", 0, start - 1) + 1
        line = lines[above : start - 1]
        if above < at_least or not line.startswith(indentation):
            break
        if not line[len(indentation) :].startswith(_COMMENT_LINE[text_format]):
            break
        start = above
    return start
