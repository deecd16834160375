"""The documents of one file. Its name decides how it is read."""

from collections.abc import Iterator

from data_schemas.params import CorpusSource
from tasks.ingest.reading.containers.csv_rows import read_csv
from tasks.ingest.reading.containers.docx import read_docx
from tasks.ingest.reading.containers.epub import read_epub
from tasks.ingest.reading.containers.json_file import MAX_JSON_BYTES, read_json
from tasks.ingest.reading.containers.pdf import read_pdf
from tasks.ingest.reading.containers.warc import read_warc
from tasks.ingest.reading.file_formats import container_of, text_format_of
from tasks.ingest.reading.file_parts import FilePart
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.html.main_text import main_text
from tasks.ingest.reading.html.parsing import MAX_HTML_BYTES
from tasks.ingest.reading.json_lines import read_json_lines
from tasks.ingest.reading.records import Document, Origin, Refused, Skipped, Unusable, whole_file
from tasks.ingest.reading.tables import read_arrow, read_parquet
from tasks.ingest.reading.text_decoding import decode_replacing


def read_file(part: FilePart, source: CorpusSource, files: Files, max_bytes: int) -> Iterator[Document | Refused | Skipped]:
    """Documents of a file's part, in order; a Refused in place of each one that cannot be read."""
    file = part.file
    origin = Origin(file.uri, file.relative, source)
    container = container_of(file.relative)
    if container == "jsonl":
        start = part.span[0] if part.span else 0
        yield from read_json_lines(files.content_blocks(file, part.span), origin, max_bytes, start, part.first_record)
    elif container == "parquet":
        yield from read_parquet(files, file, origin, max_bytes, part.span, part.first_record)
    elif container == "arrow":
        yield from read_arrow(files, file, origin, max_bytes, part.span, part.first_record)
    elif container == "csv":
        yield from read_csv(files.content_blocks(file), origin, max_bytes)
    elif container == "json":
        yield from _read_json(files, file, origin)
    elif container == "pdf":
        yield from read_pdf(files, file, origin, max_bytes)
    elif container == "epub":
        yield from read_epub(files, file, origin, max_bytes)
    elif container == "docx":
        yield read_docx(files, file, origin, max_bytes)
    elif container == "warc":
        yield from read_warc(files, file, origin, max_bytes)
    else:
        yield _read_text(files, file, origin, max_bytes, is_html=container == "html" or source.format == "html")


def _read_json(files: Files, file: SourceFile, origin: Origin) -> Iterator[Document | Refused]:
    try:
        data = _content(files, file, MAX_JSON_BYTES)
    except Unusable as problem:
        yield problem.refused(file.uri, 0)
    else:
        yield from read_json(data, origin)


def _read_text(files: Files, file: SourceFile, origin: Origin, max_bytes: int, is_html: bool) -> Document | Refused:
    try:
        data = _content(files, file, min(max_bytes, MAX_HTML_BYTES) if is_html else max_bytes)
        num_bytes = len(data)
        text, num_replaced = decode_replacing(data, origin.source.replace_undecodable, is_html=is_html)
        del data
        changes = (("undecodable", num_replaced),) if num_replaced else ()
        if is_html:
            return whole_file(main_text(text), num_bytes, "markdown", origin, changes)
        return whole_file(text, num_bytes, origin.source.format or text_format_of(file.relative), origin, changes)
    except Unusable as problem:
        return problem.refused(file.uri, 0)


def _content(files: Files, file: SourceFile, max_bytes: int) -> bytearray:
    data = bytearray()
    for block in files.content_blocks(file):
        if len(data) + len(block) > max_bytes:
            raise Unusable("too_large", f"more than {max_bytes:,} bytes")
        data += block
    return data
