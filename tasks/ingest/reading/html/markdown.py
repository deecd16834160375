"""A tree of HTML as Markdown, exactly: no character of the text is escaped, lost or added but for the marks of Markdown.

One walk over the tree, without recursion. The cost is linear: marks of emphasis do not nest in themselves, and lists and
quotations are indented up to a fixed depth.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from tasks.ingest.reading.html.blocks import Blocks, fenced
from tasks.ingest.reading.html.elements import (
    BLOCKS,
    CLOSING,
    CODE,
    EMPHASIS,
    HEADINGS,
    NOT_IN_A_CELL,
    OPENING,
    is_hidden,
    is_note_mark,
    language_of_code,
    tex_of_math,
    tex_of_script,
)

_SPACES = re.compile(r"[ \t\n\r\f]+")
_MANY_SPACES = re.compile(r" {2,}")
_MANY_BREAKS = re.compile(r"\n{3,}")
_SPACES_AT_BREAK = re.compile(r" ?\n ?")
_BACKTICKS = re.compile(r"`+")


def to_markdown(root: Any, left_out: Collection[Any] = ()) -> str:
    """The Markdown of an element and everything in it, without the elements `left_out`. It ends in a line feed unless empty."""
    from lxml import etree

    writer = _Writer(_tables_of_blocks(root))
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        if not isinstance(element.tag, str):
            continue
        if event == "start":
            if is_hidden(element) or element in left_out:
                walk.skip_subtree()
                if tex := tex_of_script(element):
                    writer.literal(tex)
            elif element.tag == "math" and (tex := tex_of_math(element)):
                walk.skip_subtree()
                writer.literal(tex)
            else:
                writer.start(element)
                writer.text(element.text)
                continue
            writer.skipped.add(element)
        else:
            if element in writer.skipped:
                writer.skipped.discard(element)
            else:
                writer.end(element)
            if element is not root:
                writer.text(element.tail)
    writer.flush()
    return writer.blocks.text()


def _tables_of_blocks(root: Any) -> set[Any]:
    """Tables for the layout of a page: with blocks in their cells, or one cell a row. Their cells become blocks."""
    from lxml import etree

    found: set[Any] = set()
    open_tables: list[tuple[Any, list[int]]] = []  # with [cells of this row, most cells of a row]
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if event == "start":
            if open_tables and element.tag in NOT_IN_A_CELL:
                found.add(open_tables[-1][0])
            if element.tag == "table":
                open_tables.append((element, [0, 0]))
            elif open_tables and element.tag == "tr":
                open_tables[-1][1][0] = 0
            elif open_tables and element.tag in ("td", "th"):
                cells = open_tables[-1][1]
                cells[0] += 1
                cells[1] = max(cells)
        elif element.tag == "table":
            table, cells = open_tables.pop()
            if cells[1] < 2:
                found.add(table)
    return found


@dataclass
class _Table:
    rows: list[list[str]] = field(default_factory=list)


class _Writer:
    """Turns the walk's events into blocks."""

    def __init__(self, tables_of_blocks: set[Any]) -> None:
        self.blocks = Blocks()
        self.skipped: set[Any] = set()
        self._tables_of_blocks = tables_of_blocks
        self._inline: list[str] = []
        self._marks: list[tuple[Any, str, int]] = []  # (element, mark, where its text begins in _inline)
        self._heading = 0
        self._pre: Any = None
        self._raw: list[str] = []
        self._table: _Table | None = None
        self._numbers: list[int | None] = []  # of the open lists: the next item's number; None for bullets

    def text(self, text: str | None) -> None:
        if not text:
            return
        if self._pre is not None:
            self._raw.append(text)
        else:
            self._inline.append(_SPACES.sub(" ", text))

    def literal(self, text: str) -> None:
        (self._raw if self._pre is not None else self._inline).append(text)

    def start(self, element: Any) -> None:
        tag = element.tag
        if tag == "br":
            self.literal("\n")
        elif self._pre is not None:
            return
        elif tag in BLOCKS:
            if self._table is None:
                self.flush()
            self._start_block(element)
        elif tag in EMPHASIS or tag in CODE:
            self._open_mark(element, "`" if tag in CODE else EMPHASIS[tag])
        elif tag in OPENING:
            self._inline.append(OPENING[tag])
        elif tag == "a" and is_note_mark(element):
            self._inline.append("[^")

    def end(self, element: Any) -> None:
        tag = element.tag
        if self._pre is not None:
            if element is self._pre:
                self._end_pre()
        elif tag in BLOCKS:
            self._end_block(element)
        elif self._marks and self._marks[-1][0] is element:
            self._close_mark()
        elif tag in CLOSING:
            self._inline.append(CLOSING[tag])
        elif tag == "a" and is_note_mark(element):
            self._inline.append("]")

    def flush(self) -> None:
        """End the paragraph or heading that the collected text makes."""
        text = self._collected()
        if not text:
            return
        if self._heading:
            self.blocks.add([f"{'#' * self._heading} {text.replace(chr(10), ' ')}"])
        else:
            self.blocks.add(text.split("\n"))

    def _collected(self) -> str:
        text = _SPACES_AT_BREAK.sub("\n", _MANY_SPACES.sub(" ", "".join(self._inline)))
        text = _MANY_BREAKS.sub("\n\n", text).strip(" \n")
        self._inline, self._marks = [], []
        return "" if text.isspace() else text

    def _start_block(self, element: Any) -> None:
        tag = element.tag
        if self._table is not None:
            if tag == "tr":
                self._inline = []
                self._table.rows.append([])
        elif tag in HEADINGS:
            self._heading = HEADINGS[tag]
        elif tag == "pre":
            self._pre = element
        elif tag == "blockquote":
            self.blocks.open("> ", "> ")
        elif tag in ("ul", "menu"):
            self._numbers.append(None)
            self.blocks.open("", "", is_list=True)
        elif tag == "ol":
            start = element.get("start") or "1"
            self._numbers.append(int(start) if start.isdecimal() and len(start) < 7 else 1)
            self.blocks.open("", "", is_list=True)
        elif tag == "li":
            marker = self._marker()
            self.blocks.open(marker, " " * len(marker))
        elif tag == "dl":
            self.blocks.open("", "", is_list=True)
        elif tag == "dd":
            self.blocks.open(": ", "  ")
        elif tag == "table" and element not in self._tables_of_blocks:
            self._table = _Table()

    def _end_block(self, element: Any) -> None:
        tag = element.tag
        if self._table is not None:
            if tag in ("td", "th") and self._table.rows:
                self._table.rows[-1].append(self._collected().replace("\n", " "))
            elif tag == "caption":
                self.flush()
            elif tag == "table":
                self._end_table(self._table)
            else:
                self._inline.append(" ")
            return
        if tag == "hr":
            self.blocks.add(["---"])
            return
        self.flush()
        if tag in HEADINGS:
            self._heading = 0
        elif tag in ("blockquote", "li", "dd", "dl"):
            self.blocks.close()
        elif tag in ("ul", "ol", "menu"):
            self.blocks.close()
            self._numbers.pop()

    def _marker(self) -> str:
        if not self._numbers or self._numbers[-1] is None:
            return "- "
        number = self._numbers[-1]
        self._numbers[-1] = number + 1
        return f"{number}. "

    def _open_mark(self, element: Any, mark: str) -> None:
        if mark == "`" or (not self._heading and all(mark != other and other != "`" for _, other, _ in self._marks)):
            if not any(other == "`" for _, other, _ in self._marks):
                self._marks.append((element, mark, len(self._inline)))

    def _close_mark(self) -> None:
        _, mark, start = self._marks.pop()
        inside = "".join(self._inline[start:])
        core = inside.strip(" \n")
        if not core or core.isspace():
            return
        before, after = inside[: inside.index(core)], inside[inside.index(core) + len(core) :]
        if mark == "`":
            mark = "`" * (1 + max((len(run) for run in _BACKTICKS.findall(core)), default=0))
            core = f" {core} " if core.startswith("`") or core.endswith("`") else core
        self._inline[start:] = [before, mark, core, mark, after]

    def _end_pre(self) -> None:
        text = "".join(self._raw).replace("\r\n", "\n").removeprefix("\n").rstrip()
        if text:
            self.blocks.add(fenced(text, language_of_code(self._pre)))
        self._pre, self._raw = None, []

    def _end_table(self, table: _Table) -> None:
        self._table = None
        rows = [row for row in table.rows if any(row)]
        self._inline = []
        if rows:
            lines = ["| " + " | ".join(row) + " |" for row in rows]
            lines.insert(1, "|" + " --- |" * len(rows[0]))
            self.blocks.add(lines)
