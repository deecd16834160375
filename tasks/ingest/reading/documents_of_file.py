"""The documents of one file. Its name decides how it is read."""

from collections.abc import Iterator

from data_schemas.params import CorpusSource
from tasks.ingest.reading.file_formats import container_of, text_format_of
from tasks.ingest.reading.file_parts import FilePart
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.json_lines import read_json_lines
from tasks.ingest.reading.markdown_from_html import MAX_HTML_BYTES, main_text
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable, whole_file
from tasks.ingest.reading.tables import read_arrow, read_parquet
from tasks.ingest.reading.text_decoding import decode


def read_file(part: FilePart, source: CorpusSource, files: Files, max_bytes: int) -> Iterator[Document | Refused]:
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
    else:
        yield _read_whole(files, file, origin, max_bytes, is_html=container == "html")


def _read_whole(files: Files, file: SourceFile, origin: Origin, max_bytes: int, is_html: bool) -> Document | Refused:
    try:
        data = _content(files, file, min(max_bytes, MAX_HTML_BYTES) if is_html else max_bytes)
        num_bytes = len(data)
        text = decode(data, is_html=is_html)
        del data
        if is_html:
            return whole_file(main_text(text), num_bytes, "markdown", origin)
        return whole_file(text, num_bytes, text_format_of(file.relative), origin)
    except Unusable as problem:
        return problem.refused(file.uri, 0)


def _content(files: Files, file: SourceFile, max_bytes: int) -> bytearray:
    data = bytearray()
    for block in files.content_blocks(file):
        if len(data) + len(block) > max_bytes:
            raise Unusable("too_large", f"more than {max_bytes:,} bytes")
        data += block
    return data
