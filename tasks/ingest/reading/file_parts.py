"""A file before it is read: a stamp of its content, and the parts that can be read independently."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.ingest.reading.file_formats import compression_of, container_of
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.json_lines import line_cuts
from tasks.ingest.reading.records import Unusable
from tasks.ingest.reading.tables import Piece, pieces_of
from tasks.ingest.reading.text_decoding import marked_encoding

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class FilePart:
    """Some records of a file. `span` [start, stop) counts bytes of JSON lines, row groups of Parquet or record batches of
    Arrow; None is the whole file. `first_record` is the number of the first line or row. `stamp`: SHA-256 of the part's bytes,
    so that lines added behind it do not change it; empty: the file's own stamp counts."""

    file: SourceFile
    num_bytes: int
    span: tuple[int, int] | None = None
    first_record: int = 1
    stamp: str = ""


@dataclass(frozen=True)
class _Cut:
    """Where a file of lines is cut: the byte, the number of the line that begins there, the SHA-256 of the part before it."""

    start: int
    line: int
    stamp_before: str


@dataclass(frozen=True)
class Examined:
    """A file's stamp and its parts, in order."""

    stamp: str
    parts: tuple[FilePart, ...]


def examine(file: SourceFile, unit_bytes: int, as_records: bool) -> Examined:
    """Stamp a file and cut it. Local files are read whole, for a hash; others only to be cut, or if they have no stamp.

    `as_records`: JSON lines and tables hold records; otherwise every file is one document.
    """
    size = file.num_bytes or 0
    whole = (FilePart(file, size),)
    container = container_of(file.relative) if as_records and size > unit_bytes else "text"
    with Files(max_expansion=2) as files:
        cuts_lines = container == "jsonl" and file.is_seekable and not compression_of(file.relative)
        if not cuts_lines and file.stamp:
            stamp = file.stamp
        else:
            try:
                content_hash, cuts, last_stamp = _scan(files, file, unit_bytes if cuts_lines else None)
            except Unusable:
                return Examined(file.stamp or UNREADABLE, whole)  # the reader refuses it
            stamp = file.stamp or content_hash
            if cuts:
                return Examined(stamp, _line_parts(file, size, cuts, last_stamp))
        if container in ("parquet", "arrow") and (pieces := pieces_of(files, file, container)):
            return Examined(stamp, _table_parts(file, size, pieces, unit_bytes))
    return Examined(stamp, whole)


def _scan(files: Files, file: SourceFile, step: int | None) -> tuple[str, list[_Cut], str]:
    """(SHA-256, cuts at line starts about `step` bytes apart, SHA-256 of what follows the last). No cuts in UTF-16 and UTF-32."""
    digest, of_part = hashlib.sha256(), hashlib.sha256()
    cuts: list[_Cut] = []
    position = num_lines = 0
    target = step
    for block in files.stored_blocks(file):
        digest.update(block)
        if position == 0 and marked_encoding(block):
            target = None
        if step and target is not None:
            found, target = line_cuts(block, position, num_lines, target, step)
            begun = 0
            for start, line in found:
                of_part.update(memoryview(block)[begun : start - position])
                cuts.append(_Cut(start, line, of_part.hexdigest()))
                begun, of_part = start - position, hashlib.sha256()
            of_part.update(memoryview(block)[begun:])
            num_lines += block.count(b"\n")
        position += len(block)
    if cuts and cuts[-1].start == position:  # at the file's end, where no part begins
        return digest.hexdigest(), cuts[:-1], cuts[-1].stamp_before
    return digest.hexdigest(), cuts, of_part.hexdigest()


def _line_parts(file: SourceFile, size: int, cuts: Sequence[_Cut], last_stamp: str) -> tuple[FilePart, ...]:
    starts = [(0, 1), *((cut.start, cut.line) for cut in cuts)]
    ends = [(cut.start, cut.stamp_before) for cut in cuts] + [(size, last_stamp)]
    return tuple(
        FilePart(file, end - start, (start, end), line, stamp)
        for (start, line), (end, stamp) in zip(starts, ends, strict=True)
        if start < end
    )


def _table_parts(file: SourceFile, size: int, pieces: Sequence[Piece], unit_bytes: int) -> tuple[FilePart, ...]:
    stored_share = size / max(1, sum(piece.num_bytes for piece in pieces))
    parts = []
    begun, record, first_record, num_bytes = 0, 1, 1, 0.0
    for index, piece in enumerate(pieces, 1):
        record += piece.num_rows
        num_bytes += piece.num_bytes * stored_share
        if num_bytes >= unit_bytes or index == len(pieces):
            parts.append(FilePart(file, round(num_bytes), (begun, index), first_record))
            begun, first_record, num_bytes = index, record, 0.0
    return tuple(parts)
