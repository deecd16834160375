"""CSV and TSV files (RFC 4180): the first row names the fields, each further row is a record, numbered from 1.

Rows are split as bytes and decoded one by one, so one bad row refuses no other. A row may span lines.
"""

import csv
from collections.abc import Iterator

from tasks.ingest.reading.json_lines import as_utf8, split_lines
from tasks.ingest.reading.record_fields import from_fields
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable
from tasks.ingest.reading.text_decoding import decode_replacing

_BYTES = "latin-1"  # gives each byte a character, so that `csv` can split what is not decoded yet
_MAX_FIELD_CHARS = 1 << 31  # rows are limited before
_DELIMITERS = (",", ";", "\t", "|")


def read_csv(blocks: Iterator[bytes], origin: Origin, max_bytes: int) -> Iterator[Document | Refused]:
    """Documents of the rows. An error in `blocks`, or a row that is too long, refuses everything after it."""
    csv.field_size_limit(_MAX_FIELD_CHARS)
    record = 0
    try:
        blocks, _ = as_utf8(blocks)
        lines = _Lines(blocks, max_bytes)
        header = next(lines, "").removeprefix("\ufeff".encode().decode(_BYTES))
        delimiter = "\t" if ".tsv" in origin.relative.lower() else max(_DELIMITERS, key=header.count)
        names = [_decoded(name, origin)[0].strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        if origin.source.instructions == "no" and origin.source.text_field not in names:
            raise Unusable("missing_text", f"no column {origin.source.text_field!r}, but {', '.join(names)[:200]}")
        rows = csv.reader(lines, delimiter=delimiter)
        while True:
            lines.begin_row()
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise Unusable("corrupt", f"not a row of CSV: {error}") from error
            if row is None:
                return
            if not row:
                continue
            record += 1
            yield _document(names, row, record, origin)
    except Unusable as problem:
        yield problem.refused(origin.uri, 0 if problem.reason == "missing_text" else record + 1)


def _document(names: list[str], row: list[str], record: int, origin: Origin) -> Document | Refused:
    try:
        if len(row) != len(names):
            raise Unusable("corrupt", f"a row of {len(row)} fields under {len(names)} names")
        decoded = [_decoded(value, origin) for value in row]
        num_replaced = sum(num for _, num in decoded)
        fields = {name: value for name, (value, _) in zip(names, decoded, strict=True)}
        return from_fields(fields, record, None, origin, (("undecodable", num_replaced),) if num_replaced else ())
    except Unusable as problem:
        return problem.refused(origin.uri, record)


def _decoded(field: str, origin: Origin) -> tuple[str, int]:
    return decode_replacing(field.encode(_BYTES), origin.source.replace_undecodable, is_start=False)


class _Lines:
    """Lines for `csv`, with their ends. Raises Unusable for a row longer than `max_bytes`."""

    def __init__(self, blocks: Iterator[bytes], max_bytes: int) -> None:
        self._lines = split_lines(blocks, max_bytes, 0, 1)
        self._max_bytes = max_bytes
        self._of_row = 0

    def begin_row(self) -> None:
        self._of_row = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._of_row += line.end - line.start
        if line.data is None or self._of_row > self._max_bytes:
            raise Unusable("too_large", f"a row of more than {self._max_bytes:,} bytes")
        return line.data.decode(_BYTES) + "\n"
