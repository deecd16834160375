"""Documents from a file: the whole file, or one a line for `.jsonl`. Whatever cannot be read is refused, never raised."""

import hashlib
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import BinaryIO

from data_schemas.params import CorpusSource
from tasks.ingest.sources import Refused, SourceFile

MAX_DOCUMENT_BYTES = 1_000_000_000
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Document:
    """One document with its text exactly as stored (line ends included, byte order mark dropped)."""

    text: str
    source_uri: str
    record: int
    licence: str
    work: str

    @cached_property
    def utf8(self) -> bytes:
        return self.text.encode()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the UTF-8 text, in hex."""
        return hashlib.sha256(self.utf8).hexdigest()

    @property
    def doc_id(self) -> str:
        return self.content_hash[:16]


class _Unusable(Exception):
    """A document's text cannot be used: (reason code, detail)."""


def read_records(file: SourceFile, source: CorpusSource) -> Iterator[Document | Refused]:
    """Documents of `file` in their order; a Refused in the place of each that cannot be read.

    Reason codes: invalid_utf8, invalid_json, missing_text, not_text, empty, nul_bytes, lone_surrogates, unreadable,
    too_large.
    """
    try:
        if not stat.S_ISREG(file.path.stat().st_mode):  # opening a named pipe would wait for ever
            yield Refused(file.uri, 0, "unreadable", "not a regular file")
            return
        with file.path.open("rb") as stream:
            if file.path.suffix.lower() == ".jsonl":
                yield from _lines(stream, file, source)
            else:
                yield _whole(stream, file, source)
    except OSError as error:
        yield Refused(file.uri, 0, "unreadable", error.strerror or type(error).__name__)


def work_of(relative: str, work_by: str) -> str:
    """The work a file belongs to: its path without suffix, or the first part of that path."""
    path = PurePosixPath(relative)
    if work_by == "file":
        return path.with_suffix("").as_posix()
    return path.parts[0] if len(path.parts) > 1 else path.stem


def _whole(stream: BinaryIO, file: SourceFile, source: CorpusSource) -> Document | Refused:
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    try:
        text = _checked(_decode(data))
    except _Unusable as problem:
        return Refused(file.uri, 0, *problem.args)
    return Document(text, file.uri, 0, source.licence, work_of(file.relative, source.work_by))


def _lines(stream: BinaryIO, file: SourceFile, source: CorpusSource) -> Iterator[Document | Refused]:
    number = 0
    while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
        number += 1
        is_cut = len(line) > MAX_DOCUMENT_BYTES
        rest = line
        while is_cut and rest and not rest.endswith(b"\n"):
            rest = stream.readline(1 << 20)
        if not line.strip():
            continue
        try:
            yield _from_line(line, number, file, source)
        except _Unusable as problem:
            yield Refused(file.uri, number, *problem.args)


def _from_line(line: bytes, number: int, file: SourceFile, source: CorpusSource) -> Document:
    try:
        fields = json.loads(_decode(line) if number == 1 else _decode(line, may_have_bom=False))
    except RecursionError as error:
        raise _Unusable("invalid_json", "nested too deeply") from error
    except ValueError as error:
        raise _Unusable("invalid_json", str(error)[:200]) from error
    if not isinstance(fields, dict):
        raise _Unusable("invalid_json", f"a line must hold an object, this one holds a {type(fields).__name__}")
    if source.text_field not in fields:
        raise _Unusable("missing_text", f"no field {source.text_field!r}")
    text = fields[source.text_field]
    if not isinstance(text, str):
        raise _Unusable("not_text", f"the field {source.text_field!r} holds a {type(text).__name__}")
    identifier = _label(fields.get("id"))
    return Document(
        _checked(text),
        f"{file.uri}#{identifier}" if identifier else file.uri,
        number,
        _label(fields.get("licence")) or source.licence,
        _label(fields.get("work")) or f"{file.relative}:{number}",
    )


def _label(value: object) -> str | None:
    """A short field as valid Unicode; None where it is absent, empty, or neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).encode("utf-8", "replace").decode() or None


def _decode(data: bytes, may_have_bom: bool = True) -> str:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _Unusable("too_large", f"more than {MAX_DOCUMENT_BYTES:,} bytes")
    if may_have_bom:
        data = data.removeprefix(_BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Unusable("invalid_utf8", f"byte {error.start}: {error.reason}") from error


def _checked(text: str) -> str:
    if not text or text.isspace():
        raise _Unusable("empty", "no text")
    if (position := text.find("\0")) >= 0:
        raise _Unusable("nul_bytes", f"a NUL at character {position}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Unusable("lone_surrogates", f"half a surrogate pair at character {error.start}") from error
    return text
