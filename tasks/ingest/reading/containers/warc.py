"""Web archives (.warc, .warc.gz; ISO 28500), by warcio: each page that was fetched is a document."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.html.main_text import main_text
from tasks.ingest.reading.html.parsing import MAX_HTML_BYTES
from tasks.ingest.reading.record_fields import from_fields, in_format
from tasks.ingest.reading.records import Document, Origin, Refused, Skipped, Unusable
from tasks.ingest.reading.text_decoding import decode_replacing

_HTML = ("text/html", "application/xhtml+xml")
_PAGES = ("response", "resource", "conversion")


def read_warc(files: Files, file: SourceFile, origin: Origin, max_bytes: int) -> Iterator[Document | Refused | Skipped]:
    """Documents of the records that hold a page of HTML or plain text. Others are Skipped: "not_a_page", "http_status".

    Requests and metadata are not counted. The record's number counts from 1.
    """
    number = 0
    try:
        for number, record in enumerate(_records(files.content_blocks(file)), 1):
            if record.rec_type in _PAGES:
                yield _page(record, number, origin, max_bytes)
        if not number:
            raise Unusable("empty", "no record in the web archive")
    except Unusable as problem:
        yield problem.refused(origin.uri, number + 1)


def _records(blocks: Iterator[bytes]) -> Iterator[Any]:
    """The records as warcio gives them. Raises Unusable for damage, behind which no record can be found."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    records = ArchiveIterator(_Stream(blocks))
    while True:
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # where it writes warnings, thousands for a damaged file
                record = next(records, None)
        except ArchiveLoadFailed as error:
            raise Unusable("corrupt", str(error).splitlines()[0]) from error
        except (EOFError, ValueError, IndexError, AttributeError) as error:
            raise Unusable("corrupt", f"a record that cannot be read ({type(error).__name__})") from error
        if records.err_count:
            raise Unusable("corrupt", "a record that does not end where it says")
        if record is None:
            return
        if record.format != "warc":  # but ARC, as it takes all else for
            raise Unusable("corrupt", "not a record of a web archive (WARC)")
        yield record


def _page(record: Any, number: int, origin: Origin, max_bytes: int) -> Document | Refused | Skipped:
    address = (record.rec_headers.get_header("WARC-Target-URI") or "").strip("<> ")
    uri = f"{origin.uri}#{address}" if address else origin.uri
    try:
        status = record.http_headers.get_statuscode() if record.http_headers else "200"
        if status != "200":
            return Skipped(uri, number, "http_status")
        headers = record.http_headers or record.rec_headers
        kind, _, rest = (headers.get_header("Content-Type") or "").partition(";")
        kind = kind.strip().lower()
        is_html = kind in _HTML
        if not is_html and kind != "text/plain":
            return Skipped(uri, number, "not_a_page")
        data = _payload(record, min(max_bytes, MAX_HTML_BYTES) if is_html else max_bytes)
        text, num_replaced = decode_replacing(data, origin.source.replace_undecodable, is_html=is_html, declared=_charset(rest))
        changes = (("undecodable", num_replaced),) if num_replaced else ()
        text, text_format = (main_text(text), "markdown") if is_html else in_format(text, origin.source.format)
        return from_fields({origin.source.text_field: text, "id": address}, number, None, origin, changes, text_format)
    except Unusable as problem:
        return problem.refused(uri, number)


def _payload(record: Any, max_bytes: int) -> bytes:
    """The page's bytes, without the transfer's chunks and compression. Raises Unusable."""
    data = bytearray()
    stream = record.content_stream()
    try:
        while block := stream.read(1 << 16):
            data += block
            if len(data) > max_bytes:
                raise Unusable("too_large", f"more than {max_bytes:,} bytes")
    except Unusable:
        raise
    except Exception as error:  # of warcio's readers of chunks and compression
        raise Unusable("corrupt", f"its content cannot be read ({type(error).__name__})") from error
    return bytes(data)


def _charset(parameters: str) -> str | None:
    for part in parameters.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "charset":
            return value.strip(" \"'")
    return None


class _Stream(io.RawIOBase):
    """Blocks of bytes as a file that can only be read on."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        super().__init__()
        self._blocks, self._left = blocks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            data, self._left = self._left + b"".join(self._blocks), b""
            return data
        if not self._left:
            self._left = next(self._blocks, b"")
        data, self._left = self._left[:size], self._left[size:]
        return data
