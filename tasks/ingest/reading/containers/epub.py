"""EPUB books (https://www.w3.org/TR/epub-33): their chapters in reading order, as one document of Markdown."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tasks.ingest.reading.containers.zipped import Members, opened_members
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.html.markdown import to_markdown
from tasks.ingest.reading.html.parsing import MAX_HTML_BYTES, parse_html, without_long_tags
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable, whole_file
from tasks.ingest.reading.text_decoding import decode

_MAX_XML_BYTES = 5_000_000  # of the container and the package document
_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?=-|$)")


@dataclass(frozen=True)
class _Package:
    """The chapters of a book in reading order, as names of members, and the language it states."""

    chapters: tuple[str, ...]
    language: str | None


def read_epub(files: Files, file: SourceFile, origin: Origin, max_bytes: int) -> Iterator[Document | Refused]:
    """The book, and a Refused for each chapter that cannot be read, with the chapter's number as its record."""
    try:
        with opened_members(files, file) as (_, members):
            package = _package(members)
            texts: list[str] = []
            num_chars = 0
            for number, name in enumerate(package.chapters, 1):
                try:
                    texts.append(_chapter(members, name))
                except Unusable as problem:
                    if problem.reason == "decompression_bomb":
                        raise
                    yield Refused(f"{origin.uri}#{name}", number, problem.reason, problem.detail)
                    continue
                num_chars += len(texts[-1])
                if num_chars > max_bytes:
                    raise Unusable("too_large", f"more than {max_bytes:,} characters")
        text = "\n".join(text for text in texts if text)
        yield whole_file(text, file.num_bytes or 0, "markdown", origin, language=origin.source.language or package.language)
    except Unusable as problem:
        yield problem.refused(origin.uri, 0)


def _chapter(members: Members, name: str) -> str:
    data = members.read(name, MAX_HTML_BYTES)
    return to_markdown(parse_html(without_long_tags(decode(data, is_html=True)))) if data.strip() else ""


def _package(members: Members) -> _Package:
    encrypted = _encrypted(members)
    rootfile = _xml(members, _CONTAINER).find(".//{*}rootfile")
    if rootfile is None or not rootfile.get("full-path"):
        raise Unusable("corrupt", f"{_CONTAINER} names no package document")
    path = rootfile.get("full-path")
    package = _xml(members, path)
    pages = {
        item.get("id"): posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(item.get("href") or "")))
        for item in package.iterfind(".//{*}manifest/{*}item")
        if item.get("media-type") in _PAGES and "nav" not in (item.get("properties") or "").split()
    }
    order = (item.get("idref") for item in package.iterfind(".//{*}spine/{*}itemref"))
    chapters = tuple(dict.fromkeys(pages[name] for name in order if name in pages))
    if not chapters:
        raise Unusable("corrupt", "the package document lists no chapter")
    if encrypted.intersection(chapters):
        raise Unusable("encrypted", "its chapters are encrypted (DRM)")
    stated = package.findtext(".//{http://purl.org/dc/elements/1.1/}language") or ""
    language = _LANGUAGE.match(stated.strip().lower())
    return _Package(chapters, language[0] if language and language[0] != "und" else None)


def _encrypted(members: Members) -> frozenset[str]:
    """Names of encrypted members; fonts often are, in books that can be read."""
    if _ENCRYPTION not in members.names:
        return frozenset()
    found = _xml(members, _ENCRYPTION).iterfind(".//{*}CipherReference")
    return frozenset(unquote(reference.get("URI") or "") for reference in found)


def _xml(members: Members, name: str) -> Any:
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
    try:
        root = etree.fromstring(members.read(name, _MAX_XML_BYTES), parser)
    except (etree.LxmlError, ValueError) as error:
        raise Unusable("corrupt", f"{name}: {error}") from error
    if root is None:
        raise Unusable("corrupt", f"{name} is not XML")
    return root
