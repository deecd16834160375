"""The text layer of PDF files (by pypdf), as plain text: one document a file, its pages one below another.

A page that holds images and no text is a scan; it is counted, and a file of scans alone is refused as `scanned`.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.records import Document, Origin, Refused, Skipped, Unusable, whole_file


def read_pdf(files: Files, file: SourceFile, origin: Origin, max_bytes: int) -> Iterator[Document | Refused | Skipped]:
    """The document; before it a Skipped "scanned_page" for each scanned page and a Refused for each page that fails."""
    try:
        with files.local_path(file) as path, open(path, "rb") as stream, _quietly():
            with _refusing():
                reader, num_pages = _opened(stream)
            texts: list[str] = []
            num_chars = num_scanned = num_refused = 0
            for number in range(num_pages):
                try:
                    with _refusing():
                        page = reader.pages[number]
                        text = page.extract_text().strip()
                        is_scanned = not text and _has_image(page)
                except Unusable as problem:
                    num_refused += 1
                    yield problem.refused(origin.uri, number + 1)
                    continue
                if is_scanned:
                    num_scanned += 1
                    yield Skipped(origin.uri, number + 1, "scanned_page")
                texts.append(text)
                num_chars += len(text)
                if num_chars > max_bytes:
                    raise Unusable("too_large", f"more than {max_bytes:,} characters")
        text = "\n".join(text for text in texts if text)
        if not text and num_scanned:
            raise Unusable("scanned", f"{num_scanned} scanned pages and no text layer: add one by text recognition (OCR)")
        if not text and num_refused:
            return
        yield whole_file(f"{text}\n" if text else "", file.num_bytes or 0, "plain", origin)
    except Unusable as problem:
        yield problem.refused(origin.uri, 0)


def _opened(stream: Any) -> tuple[Any, int]:
    """(reader, number of pages). Raises Unusable for an encrypted file that needs a password."""
    import pypdf

    reader = pypdf.PdfReader(stream)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unusable("encrypted", "a password is needed")
    return reader, len(reader.pages)


def _has_image(page: Any) -> bool:
    resources = page.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    if objects is None:
        return False
    return any(one.get_object().get("/Subtype") == "/Image" for one in objects.get_object().values())


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn what pypdf raises, which for damaged files can be any error, into Unusable."""
    try:
        yield
    except (Unusable, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        kind = type(error).__name__
        reason = {"LimitReachedError": "decompression_bomb", "EmptyFileError": "empty", "DependencyError": "encrypted"}.get(
            kind
        )
        raise Unusable(reason or "corrupt", f"pypdf: {str(error) or kind}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without pypdf's warnings, of which a damaged file has thousands."""
    log = logging.getLogger("pypdf")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
