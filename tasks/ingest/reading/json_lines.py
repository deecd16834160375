"""JSON lines: one document a line, read in blocks, so that memory is bounded for a line of any length."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.ingest.reading.record_fields import from_fields
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable
from tasks.ingest.reading.text_decoding import decode_replacing, marked_encoding


@dataclass(frozen=True)
class Line:
    """A line without its line feed: number from 1, position [start, end) in bytes; `data` is None if it is too long."""

    number: int
    start: int
    end: int
    data: bytes | bytearray | None


def read_json_lines(
    blocks: Iterator[bytes], origin: Origin, max_bytes: int, start: int = 0, first_line: int = 1
) -> Iterator[Document | Refused]:
    """Documents in the lines of `blocks`, which begin at byte `start`, line `first_line` of the file.

    Blank lines are counted and skipped. An error in `blocks` refuses everything after the last whole line.
    """
    number = first_line - 1
    try:
        blocks, has_spans = as_utf8(blocks) if start == 0 else (blocks, True)
        for line in split_lines(blocks, max_bytes, start, first_line):
            number = line.number
            found = _document(line, has_spans, origin, max_bytes)
            del line  # a long one should not stay beside the document made of it
            if found:
                yield found
            del found  # nor one document beside the next
    except Unusable as problem:
        yield problem.refused(origin.uri, number + 1)


def split_lines(blocks: Iterator[bytes], max_bytes: int, start: int, first_line: int) -> Iterator[Line]:
    """All lines; one longer than `max_bytes` comes without its data. The last line needs no line feed."""
    begun = bytearray()  # of a line that goes on in the next block
    is_long = False
    number, line_start, position = first_line, start, start
    data: bytes | bytearray | None
    for block in blocks:
        at = 0
        while (end := block.find(b"\n", at)) >= 0:
            is_long = is_long or len(begun) + end - at > max_bytes
            if is_long:
                data, begun = None, bytearray()
            elif begun:
                begun += memoryview(block)[at:end]
                data, begun = begun, bytearray()
            else:
                data = block[at:end]
            yield Line(number, line_start, position + end, data)
            is_long = False
            number, line_start, at = number + 1, position + end + 1, end + 1
        if is_long or len(begun) + len(block) - at > max_bytes:
            begun, is_long = bytearray(), True
        else:
            begun += memoryview(block)[at:]
        position += len(block)
    if position > line_start:
        yield Line(number, line_start, position, None if is_long else begun)


def line_cuts(block: bytes, position: int, num_lines: int, target: int, step: int) -> tuple[list[tuple[int, int]], int]:
    """Where a file may be cut inside one block of it: ([(start of a line, its number)], next target).

    `position` and `num_lines` count the bytes and lines before the block. The first cut is the first line start at or after
    `target`, each next one the first that is `step` bytes further.
    """
    cuts = []
    counted = 0
    while (search_from := max(0, target - 1 - position)) < len(block):
        if (end := block.find(b"\n", search_from)) < 0:
            break
        num_lines += block.count(b"\n", counted, end + 1)
        counted = end + 1
        cuts.append((position + end + 1, num_lines + 1))
        target = position + end + 1 + step
    return cuts, target


def _document(line: Line, has_span: bool, origin: Origin, max_bytes: int) -> Document | Refused | None:
    if line.data is not None and (not line.data or line.data.isspace()):
        return None
    try:
        span = (line.start, line.end) if has_span else None
        fields, num_replaced = _parsed(line, origin, max_bytes)
        return from_fields(fields, line.number, span, origin, (("undecodable", num_replaced),) if num_replaced else ())
    except Unusable as problem:
        return problem.refused(origin.uri, line.number)


def _parsed(line: Line, origin: Origin, max_bytes: int) -> tuple[dict[str, Any], int]:
    """(the line's object, number of damaged places). Raises Unusable."""
    if line.data is None:
        raise Unusable("too_large", f"a line of {line.end - line.start:,} bytes, more than {max_bytes:,}")
    try:
        text, num_replaced = decode_replacing(line.data, origin.source.replace_undecodable, is_start=line.start == 0)
        fields = json.loads(text)
    except RecursionError as error:
        raise Unusable("invalid_json", "nested too deeply") from error
    except ValueError as error:
        raise Unusable("invalid_json", str(error)) from error
    if not isinstance(fields, dict):
        raise Unusable("invalid_json", f"a line must hold an object, this one holds a {type(fields).__name__}")
    return fields, num_replaced


def as_utf8(blocks: Iterator[bytes]) -> tuple[Iterator[bytes], bool]:
    """The blocks, and whether their bytes are the file's: a file marked as UTF-16 or UTF-32 becomes UTF-8."""
    first = next(blocks, b"")
    encoding = marked_encoding(first)

    def again() -> Iterator[bytes]:
        yield first
        yield from blocks

    return (_transcoded(again(), encoding), False) if encoding else (again(), True)


def _transcoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in blocks:
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise Unusable("undecodable", f"taken for {encoding}, but {error}") from error
