"""The lines of a block, and whether their ends mean something.

A line end is a good place to cut in lists, tables, poems, chats, transcripts, CSV and quotations of them. In a paragraph that
was wrapped to a width, it is not. Lines count as wrapped if the first two of these hold, or the third, and as lines otherwise:

- most breaks are forced: with the first word of the next line, the line would be longer than the longest one;
- most of the punctuation marks stand inside lines, not at their ends;
- the block ends like a sentence, and half of its lines run on: no full stop at the end, and a small letter below.

A short block says little, so the beginning of the document counts too (`Habit`). Lines over 160 characters, and those that
mostly open with a time or a speaker's name, are not wrapped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

BLOCK, LINE, HEAD = (
    0,
    1,
    2,
)  # strength of a line start; BLOCK: a table or quotation starts or ends here; HEAD: in a table's head

_MAX_WIDTH = 160
_MIN_FORCED, _MIN_INSIDE, _MIN_RUN_ON = 0.55, 0.5, 0.5
_HABIT_WEIGHT = 4  # breaks of the block that the rest of the document counts for
_ENOUGH_BREAKS = 16  # for a decision without the rest of the document
_SAMPLE_LINES = 100
_HABIT_CHARS = 1 << 13
_MARKED = re.compile(
    r"( {0,3}>)|[ \t]*(?:[-*+•‣·]|\d{1,3}[.)]|\([a-z\d]{1,3}\)|[a-z]\)|[ivx]{1,4}[.)])[ \t]"
)  # quotation, item
_MARKED_BELOW = re.compile(rf"\n(?:{_MARKED.pattern})")
_RULED = re.compile(r"(?=[ \t:|+=]*+-)[ \t:|+=-]++")  # the line under a table's head
_QUOTED = re.compile(r" {0,3}>(?: ?>)* ?")
_LABEL = re.compile(r"\W{0,3}\d{1,4}[:./-]\d|[ \t]*[\[(<][^\])>]{1,30}[\])>]|[ \t]*[^\W\d_][\w .'-]{0,24}:\s")
_MARKS_INSIDE = re.compile(r"[.,;:!?](?=[ \t]+\S)|[。，、；：！？।](?=\S)")
_MARKS = ".,;:!?。，、；：！？।"
_TITLE = re.compile(r"[ \t]*(?:§ ?)?(?:\d{1,3}(?:\.\d{1,3})*|[A-Z]|[IVXLC]{1,6})[.)]?[ \t]+(?=[^\s\d])[^\n]{1,60}")
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\u0e00-\u0eff]")


@dataclass(frozen=True)
class Habit:
    """Line breaks that look forced, of all; punctuation marks inside lines, of all."""

    breaks: float = 0
    forced: float = 0
    marks: float = 0
    inside: float = 0


def habit_of(text: str) -> Habit:
    """How the beginning of a text breaks its lines; 8192 characters are read."""
    total = [0.0] * 4
    for block in re.split(r"\n\s*\n", text[:_HABIT_CHARS]):
        run = [line for line in block.split("\n") if line.strip()]
        if len(run) > 1 and not any(_is_marked(line) for line in run):
            found = _evidence(run)
            total = [a + b for a, b in zip(total, (found.breaks, found.forced, found.marks, found.inside), strict=True)]
    return Habit(*total)


def line_starts(block: str, habit: Callable[[], Habit]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(first character, strength) of the lines of a block that are good places to cut, without its first line; and
    (first character, end) of its tables.

    `block` has "\\n" for every line end. No cut parts the head of a table from its first row, or a numbered title such as
    "1. OBLIGATIONS." from the line below it.
    """
    starts: list[tuple[int, int]] = []
    tables: list[tuple[int, int]] = []
    if "\n" not in block:
        return starts, [(0, len(block))] if is_table_row(block) else tables
    if not _may_be_marked(block):
        texts = [line for line in block.split("\n") if line.strip()]
        if len(texts) < 2 or is_wrapped(texts, habit):
            return starts, tables
    before = ""
    for kind, run in _runs(block):
        texts = [_QUOTED.sub("", line, count=1) if kind == "quotation" else line for _, line in run]
        if before:
            if kind in ("table", "quotation") or before in ("table", "quotation"):
                starts.append((run[0][0], BLOCK))
            elif kind == "item":
                starts.append((run[0][0], LINE))
        if kind == "table":
            tables.append((run[0][0], run[-1][0] + len(run[-1][1])))
            head = 2 if len(run) > 1 and _RULED.fullmatch(texts[1]) else 0
            rows = [(char, n) for n, (char, line) in enumerate(run) if n and not _RULED.fullmatch(line)]
            starts += [(char, LINE if n > head else HEAD) for char, n in rows]
        elif kind == "quotation":
            starts += _quoted_starts(run, texts, habit)
        elif kind == "item" or (len(run) > 1 and not is_wrapped(texts, habit)):
            parted = zip(run[1:], texts, strict=False)
            starts += [(char, LINE) for (char, _), above in parted if not is_numbered_title(above)]
        before = kind
    return starts, tables


def _quoted_starts(
    run: Sequence[tuple[int, str]], texts: Sequence[str], habit: Callable[[], Habit]
) -> Iterator[tuple[int, int]]:
    """Places to cut in a quotation with these `texts`: where a paragraph starts, after empty lines, and at lines that are not
    wrapped."""
    is_empty = [not text.strip() for text in texts]
    for empty, numbers in itertools.groupby(range(len(run)), key=is_empty.__getitem__):
        first, *others = numbers
        if empty:
            continue
        if first:
            yield run[first][0], LINE
        if others and not is_wrapped([texts[first], *(texts[number] for number in others)], habit):
            yield from ((run[number][0], LINE) for number in others if not is_numbered_title(texts[number - 1]))


def is_numbered_title(line: str) -> bool:
    """Whether a line is a number and a short title in capitals, as in "3. TERM AND NOTICE."."""
    return bool(_TITLE.fullmatch(line.rstrip())) and line.isupper()


def is_table_row(line: str) -> bool:
    """Whether a line is a row of a Markdown or reStructuredText table, or has columns between tabs."""
    if "|" not in line and "\t" not in line and "+" not in line:
        return False
    visible = line.strip()
    return visible[:1] == "|" or visible[:2] in ("+-", "+=") or visible.count("|") > 1 or "\t" in visible


def is_wrapped(run: Sequence[str], of_document: Callable[[], Habit] = Habit) -> bool:
    """Whether lines are a paragraph wrapped to a width, by the first 100 of them; see the module."""
    run = run[:_SAMPLE_LINES]
    if max(map(len, run)) > _MAX_WIDTH or _are_labelled(run):
        return False
    if _ends_like_a_sentence(run[-1]) and _share_that_runs_on(run) >= _MIN_RUN_ON:
        return True
    own = _evidence(run)
    habit = of_document() if own.breaks < _ENOUGH_BREAKS else Habit()
    weight = min(1.0, _HABIT_WEIGHT / habit.breaks) if habit.breaks else 0.0
    breaks, forced, marks, inside = (
        a + weight * b
        for a, b in (
            (own.breaks, habit.breaks), (own.forced, habit.forced), (own.marks, habit.marks), (own.inside, habit.inside)
        )
    )  # fmt: skip
    return inside > 0 and inside >= _MIN_INSIDE * marks and forced >= _MIN_FORCED * breaks


def _are_labelled(run: Sequence[str]) -> bool:
    """Whether more than 60 % of the lines open with a time or a speaker's name."""
    left = 0.4 * len(run)
    for line in run:
        left -= not _LABEL.match(line)
        if left <= 0:
            return False
    return True


def _ends_like_a_sentence(line: str) -> bool:
    return line.rstrip().rstrip("\"'”’»)]")[-1:] in tuple(".!?…。！？।")


def _share_that_runs_on(run: Sequence[str]) -> float:
    run_on = sum(
        line.rstrip()[-1:] not in _MARKS.replace(",", "") and below.lstrip()[:1].islower()
        for line, below in itertools.pairwise(run)
    )
    return run_on / max(1, len(run) - 1)


def _evidence(run: Sequence[str]) -> Habit:
    run = [line.rstrip() for line in run]
    lengths = list(map(len, run))
    width = max(lengths)
    inside = len(_MARKS_INSIDE.findall("\n".join(run)))
    at_end = sum(line[-1:] in _MARKS for line in run[:-1])
    forced = sum(length + _joined(below) > width for length, below in zip(lengths, run[1:], strict=False))
    return Habit(len(run) - 1, forced, inside + at_end, inside)


def _joined(line: str) -> int:
    """How many characters the first word of a line would have added to the line above."""
    first = line.split(None, 1)[0]
    return len(first) + 1 if first.isascii() or not _WIDE.match(first) else 2


def _may_be_marked(block: str) -> bool:
    """False if a block surely has no row of a table, no item and no quotation: most paragraphs, of which no line is looked at."""
    return "|" in block or "\t" in block or "+" in block or bool(_MARKED.match(block)) or bool(_MARKED_BELOW.search(block))


def _is_marked(line: str) -> bool:
    return is_table_row(line) or bool(_MARKED.match(line))


def _runs(block: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """(kind, lines with their first character) of lines of a kind that follow each other: table, quotation, item (a list's item,
    one line), text. Blank lines belong to no run."""
    run: list[tuple[int, str]] = []
    kind, char = "", 0
    for line in block.split("\n"):
        if line.strip():
            of_line = "text"
            if is_table_row(line):
                of_line = "table"
            elif marked := _MARKED.match(line):
                of_line = "quotation" if marked[1] else "item"
            if run and (of_line != kind or kind == "item"):
                yield kind, run
                run = []
            kind = of_line
            run.append((char, line))
        char += len(line) + 1
    if run:
        yield kind, run
