"""PDF, EPUB, DOCX, WARC, CSV and JSON: what they hold, and that damaged, encrypted or hostile ones are refused alone."""

import csv
import gzip
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pypdf
import pytest

from data_schemas.errors import UserError
from data_schemas.params import CorpusParams
from tasks.ingest.corpus_units import plan_corpus
from tests.tasks.ingest.reading.made_files import (
    docx_members,
    epub_members,
    pdf_lines,
    pdf_of_pages,
    pdf_stream,
    warc_record,
    word_paragraph,
    zip_of,
)
from tests.tasks.ingest.reading_example import read

PROSE = "The rope bridge crosses the deep valley, and the ropes are made of grass by the whole village every summer. " * 4
BOOK = zip_of(epub_members({"a.xhtml": f"<h1>One</h1><p>{PROSE}</p>", "b%20c.xhtml": ""} | {"d.xhtml": "<h1>Two</h1>"}))
LETTER = zip_of(docx_members(word_paragraph("Ropes", "heading1") + word_paragraph(PROSE)))
PAPER = pdf_of_pages([pdf_lines(["Ropes are strong.", "Bridges are long."])])


def test_the_text_layer_of_a_pdf(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_of_pages([pdf_lines(["Ropes are", "naïve."]), b"", pdf_lines(["The end."])]))
    (tmp_path / "b.pdf.gz").write_bytes(gzip.compress(PAPER))
    found = read({"uri": str(tmp_path), "name": "s"})
    assert found.texts == ["Ropes are\nnaïve.\nThe end.\n", "Ropes are strong.\nBridges are long.\n"]
    assert [(d.format, d.work, d.record) for d in found.documents] == [("plain", "a", 0), ("plain", "b", 0)]


def test_scanned_pages_are_said_to_be_scanned(tmp_path: Path) -> None:
    (tmp_path / "all.pdf").write_bytes(pdf_of_pages([b"/I Do", b"/I Do"], image=True))
    (tmp_path / "some.pdf").write_bytes(pdf_of_pages([pdf_lines(["A title page."]), b"/I Do"], image=True))
    (tmp_path / "blank.pdf").write_bytes(pdf_of_pages([b""]))
    found = read(str(tmp_path))
    assert found.texts == ["A title page.\n"]
    assert found.reasons == {("all.pdf", 0): "scanned", ("blank.pdf", 0): "empty"}
    scanned = [(s.source_uri.rsplit("/")[-1], s.record, s.reason) for s in found.skipped]
    assert scanned == [("all.pdf", 1, "scanned_page"), ("all.pdf", 2, "scanned_page"), ("some.pdf", 2, "scanned_page")]


def encrypted_pdf(password: str) -> bytes:
    writer = pypdf.PdfWriter(io.BytesIO(PAPER))
    writer.encrypt(password, "owner", algorithm="AES-256")
    sink = io.BytesIO()
    writer.write(sink)
    return sink.getvalue()


def test_hostile_pdfs_are_refused_alone(tmp_path: Path) -> None:
    files = {
        "bomb": pdf_of_pages([b"BT /F 12 Tf (x) Tj ET" + b" " * 100_000_000]),
        "closed": encrypted_pdf("secret"),
        "cut": PAPER[: len(PAPER) // 3],
        "empty": b"",
        "good": PAPER,
        "loop": PAPER.replace(b"/Kids[5 0 R]", b"/Kids[2 0 R]"),
        "noise": b"no PDF at all" * 99,
        "open": encrypted_pdf(""),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.pdf").write_bytes(data)
    found = read(str(tmp_path), max_quarantined_fraction=1)
    assert [d.work for d in found.documents] == ["good", "open"]
    assert set(found.texts) == {"Ropes are strong.\nBridges are long.\n"}
    reasons = {name.removesuffix(".pdf"): reason for (name, _), reason in found.reasons.items()}
    assert reasons.pop("loop") in ("corrupt", "empty")
    assert reasons == {
        "bomb": "decompression_bomb",
        "closed": "encrypted",
        "cut": "corrupt",
        "empty": "empty",
        "noise": "corrupt",
    }


def test_forms_that_show_forms_do_not_multiply(tmp_path: Path) -> None:
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</Font<</F 3 0 R>>/XObject<</I 4 0 R>>>>"
    itself = pdf_of_pages([pdf_lines(["Shown once."]) + b" /I Do"], image=True)
    start, end = itself.index(b"4 0 obj\n") + 8, itself.index(b"\nendobj\n5 0 obj")
    (tmp_path / "a.pdf").write_bytes(itself[:start] + pdf_stream(b"/I Do /I Do", form) + itself[end:])
    (document,) = read(str(tmp_path)).documents
    assert document.text.startswith("Shown once.")
    assert len(document.text) < 1000


def test_a_book_in_epub_is_one_document_in_its_language(tmp_path: Path) -> None:
    chapters = {
        "z%20one.xhtml": f"<h1>Erstes</h1><p>snake_case *x* <i>kursiv</i></p><blockquote>{PROSE}</blockquote>",
        "a.xhtml": "<h1>Zweites</h1><hr/><p>Ende<a epub:type='noteref' href='n.xhtml#n1'>1</a>.</p>",
    }
    members = epub_members(chapters, language="de-AT")
    members["OEBPS/text/z one.xhtml"] = members.pop("OEBPS/text/z%20one.xhtml")
    (tmp_path / "book.epub").write_bytes(zip_of(members))
    (document,) = read(str(tmp_path)).documents
    text = f"# Erstes\n\nsnake_case *x* *kursiv*\n\n> {PROSE.strip()}\n\n# Zweites\n\n---\n\nEnde[^1].\n"
    assert (document.text, document.format, document.language, document.work) == (text, "markdown", "de", "book")
    (stated,) = read({"uri": str(tmp_path), "language": "fr"}).documents
    assert stated.language == "fr"


def test_hostile_books_are_refused_and_bad_chapters_alone(tmp_path: Path) -> None:
    members = epub_members({"a.xhtml": f"<p>{PROSE}</p>", "b.xhtml": "<p>bad</p>", "c.xhtml": "<p>The end.</p>"})
    locked = (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><e:EncryptedData '
        'xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherData><e:CipherReference URI="OEBPS/text/a.xhtml"/></e:CipherData>'
        "</e:EncryptedData></encryption>"
    )
    laughs = '<!DOCTYPE c [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12)
    )
    files = {
        "bomb": zip_of(
            members | {"OEBPS/text/a.xhtml": "<p>" + "a" * 19_000_000, "OEBPS/text/b.xhtml": "<p>" + "b" * 19_000_000}
        ),
        "cut": BOOK[: len(BOOK) // 2],
        "drm": zip_of(members | {"META-INF/encryption.xml": locked}),
        "empty": b"",
        "entities": zip_of(members | {"META-INF/container.xml": f"{laughs}]><c>&m;</c>"}),
        "missing": zip_of({name: data for name, data in members.items() if "b.xhtml" not in name}),
        "noise": b"no zip at all" * 99,
        "outside": zip_of({"META-INF/container.xml": members["META-INF/container.xml"].replace("OEBPS/", "../../")}),  # type: ignore[union-attr,arg-type]
        "plain": zip_of({"a.txt": "no book"}),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.epub").write_bytes(data)
    found = read(str(tmp_path))
    assert found.texts == [f"{PROSE.strip()}\n\nThe end.\n"]
    assert {(r.source_uri.rsplit("/", 1)[-1].split(".epub")[0], r.record, r.reason) for r in found.refused} == {
        ("bomb", 0, "decompression_bomb"),
        ("cut", 0, "truncated"),
        ("drm", 0, "encrypted"),
        ("empty", 0, "empty"),
        ("entities", 0, "corrupt"),
        ("b.xhtml", 2, "corrupt"),  # of the book with a missing chapter
        ("noise", 0, "corrupt"),
        ("outside", 0, "corrupt"),
        ("plain", 0, "corrupt"),
    }


def test_a_word_document_becomes_markdown(tmp_path: Path) -> None:
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    table = f"<w:tbl><w:tr>{cell.format('a')}{cell.format('b')}</w:tr><w:tr>{cell.format('1')}{cell.format('2')}</w:tr></w:tbl>"
    body = (
        word_paragraph("About ropes", "Title")
        + word_paragraph("First part", "heading1")
        + word_paragraph("snake_case and *args in [1].")
        + word_paragraph("As was said.", "Quote")
        + word_paragraph("def a():\n    return 1\n\n\nx = 2", "SourceCode")
        + table
        + "<w:p><w:r><w:t>A formula:</w:t></w:r><m:oMath><m:r><m:t>E</m:t></m:r></m:oMath></w:p>"
        + "<w:p><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins></w:p>"
    )
    (tmp_path / "a.docx").write_bytes(zip_of(docx_members(body)))
    (document,) = read(str(tmp_path)).documents
    assert document.text == (
        "# About ropes\n\n# First part\n\nsnake_case and *args in [1].\n\n> As was said.\n\n"
        "```\ndef a():\n    return 1\n\n\nx = 2\n```\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nA formula:\n\ninserted\n"
    )
    assert (document.format, document.work, document.changes) == ("markdown", "a", (("formula", 1),))


def test_hostile_word_documents_are_refused_alone(tmp_path: Path) -> None:
    entity = '<!DOCTYPE a [<!ENTITY x "y">]>'
    members = docx_members(word_paragraph(PROSE))
    files = {
        "bomb": zip_of(members | {"word/document.xml": b"<w>" + b" " * 25_000_000}),
        "cut": LETTER[: len(LETTER) // 2],
        "deep": zip_of(docx_members("<w:tbl><w:tr><w:tc>" * 3000)),
        "empty": b"",
        "entity": zip_of(members | {"word/document.xml": entity + str(members["word/document.xml"])}),
        "good": LETTER,
        "locked": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(5000),
        "none": zip_of({name: data for name, data in members.items() if name != "word/document.xml"}),
        "plain": zip_of({"a.txt": "no document"}),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.docx").write_bytes(data)
    found = read(str(tmp_path))
    assert [d.work for d in found.documents] == ["good"]
    assert {name.removesuffix(".docx"): reason for (name, _), reason in found.reasons.items()} == {
        "bomb": "decompression_bomb",
        "cut": "truncated",
        "deep": "corrupt",
        "empty": "empty",
        "entity": "corrupt",
        "locked": "encrypted",
        "none": "corrupt",
        "plain": "corrupt",
    }


HTML = f"<html><body><main><h1>Ropes</h1><p>{PROSE}</p></main></body></html>"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=windows-1252\r\n"


def an_archive() -> bytes:
    return b"".join(
        [
            warc_record("warcinfo", "", "application/warc-fields", b"software: made by hand\r\n"),
            warc_record("request", "https://a.example/", "application/http", b"GET / HTTP/1.1\r\n\r\n"),
            warc_record(
                "response", "https://a.example/", "application/http", HTML.replace("rope", "röpe").encode("cp1252"), OK
            ),
            warc_record("response", "https://a.example/no", "application/http", b"gone", OK.replace(b"200 OK", b"404 No")),
            warc_record(
                "response", "https://a.example/p.png", "application/http", b"x", OK.replace(b"text/html", b"image/png")
            ),
            warc_record("conversion", "https://a.example/t", "text/plain", b"# One\n\ntext\n\n# Two\n\ntext"),
            warc_record("response", "https://a.example/e", "application/http", b"<p></p>", OK),
        ]
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_pages_of_a_web_archive(tmp_path: Path, compressed: bool) -> None:
    name = "a.warc.gz" if compressed else "a.warc"
    (tmp_path / name).write_bytes(gzip.compress(an_archive()) if compressed else an_archive())
    found = read({"uri": str(tmp_path), "name": "crawl"})
    one, other = found.documents
    assert one.text == f"# Ropes\n\n{PROSE.strip()}\n".replace("rope", "röpe")
    assert (one.record, one.source_uri, one.format) == (3, f"{tmp_path}/{name}#https://a.example/", "markdown")
    assert (other.record, other.format, other.work) == (6, "markdown", "crawl#https://a.example/t")
    assert [(r.record, r.reason) for r in found.refused] == [(7, "empty")]
    assert [(s.record, s.reason) for s in found.skipped] == [(4, "http_status"), (5, "not_a_page")]


def test_damaged_web_archives_give_what_comes_before_the_damage(tmp_path: Path) -> None:
    bomb = gzip.compress(b"a" * 30_000_000)
    packed = OK + b"Content-Encoding: gzip\r\n"
    (tmp_path / "bomb.warc").write_bytes(warc_record("response", "https://b", "application/http", bomb, packed))
    (tmp_path / "cut.warc").write_bytes(an_archive() + warc_record("response", "https://c", "application/http", b"x" * 99)[:50])
    (tmp_path / "empty.warc").write_bytes(b"")
    (tmp_path / "noise.warc").write_bytes(b"no web archive at all\r\n" * 99)
    found = read(str(tmp_path))
    assert len(found.documents) == 2
    reasons = {(name.split("#")[0], record): reason for (name, record), reason in found.reasons.items()}
    assert reasons[("b", 1)] == "too_large"
    assert reasons[("empty.warc", 1)] == "empty"
    assert reasons[("noise.warc", 1)] == "corrupt"


def as_csv(rows: list[list[str]], **options: Any) -> str:
    sink = io.StringIO()
    csv.writer(sink, **options).writerows(rows)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.csv", {}),
        ("b.csv", {"delimiter": ";", "quoting": csv.QUOTE_ALL}),
        ("c.tsv", {"delimiter": "\t", "lineterminator": "\n"}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rows_of_csv_files(tmp_path: Path, name: str, options: dict[str, Any], encoding: str) -> None:
    rows = [
        ["id", "body", "work"],
        ["r1", 'one "quoted"\n\nnaïve; line, with\ttab', "w"],
        ["", "# A\n\nb\n\n# C", ""],
        ["r3", "", ""],
    ]
    (tmp_path / name).write_bytes(as_csv(rows, **options).encode(encoding))
    found = read({"uri": f"{tmp_path}/{name}", "text_field": "body", "name": "s"})
    assert [(d.text, d.record, d.format) for d in found.documents] == [
        (rows[1][1], 1, "plain"),
        ("# A\n\nb\n\n# C", 2, "markdown"),
    ]
    assert (found.documents[0].work, found.documents[0].source_uri.endswith("#r1")) == ("w", True)
    assert found.reasons == {(name, 3): "empty"}


def test_bad_rows_are_refused_alone(tmp_path: Path) -> None:
    rows = b'text,id\r\ngood,1\r\n"a,b",2,3\r\nbad \xff\xfe\xfa,4\r\nalso good,5\r\n'
    (tmp_path / "a.csv").write_bytes(rows)
    (tmp_path / "b.csv").write_bytes(b"body,id\r\nx,1\r\n")
    (tmp_path / "c.csv").write_bytes(b'text\r\none\r\n"never closed\r\n' + b"x" * 300 + b"\r\n")
    (tmp_path / "d.csv").write_bytes(b"")
    found = read({"uri": str(tmp_path), "include": ("*.csv",)}, max_document_megabytes=1e-4)
    assert found.texts == ["good", "also good", "one"]
    assert found.reasons == {
        ("a.csv", 2): "corrupt",
        ("a.csv", 3): "undecodable",
        ("b.csv", 0): "missing_text",
        ("c.csv", 2): "too_large",
        ("d.csv", 0): "missing_text",
    }


@pytest.mark.parametrize(
    ("content", "options", "texts"),
    [
        ([{"text": "one"}, {"text": "two", "id": 7}], {}, ["one", "two"]),
        ({"text": "alone"}, {}, ["alone"]),
        ({"data": {"items": [{"doc": {"body": "deep"}}]}}, {"records_field": "data.items", "text_field": "doc.body"}, ["deep"]),
        ([{"a.b": "by name", "a": {"b": "by path"}}], {"text_field": "a.b"}, ["by name"]),
    ],
)
def test_records_of_a_json_file(tmp_path: Path, content: Any, options: dict[str, Any], texts: list[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1))
    found = read({"uri": f"{tmp_path}/a.json", **options})
    assert (found.texts, [d.record for d in found.documents]) == (texts, list(range(1, len(texts) + 1)))


def test_json_files_that_hold_no_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "lines.json").write_text('{"text": "a"}\n{"text": "b"}')
    (tmp_path / "mixed.json").write_text('[1, {"text": "good"}, {"text": 2}, {"tekst": ""}]')
    (tmp_path / "other.json").write_text('{"data": [], "text": "settings"}')
    source = {"uri": str(tmp_path), "include": ("*.json",)}
    found = read(source)
    assert found.texts == ["good", "settings"]
    assert found.reasons == {
        ("deep.json", 0): "invalid_json",
        ("lines.json", 0): "invalid_json",
        ("mixed.json", 1): "invalid_json",
        ("mixed.json", 3): "not_text",
        ("mixed.json", 4): "missing_text",
    }
    assert "name the file .jsonl" in next(r.detail for r in found.refused if r.source_uri.endswith("lines.json"))
    assert read({**source, "records_field": "data.rows"}).reasons[("other.json", 0)] == "missing_text"


def test_latex_is_kept_as_it_is(tmp_path: Path) -> None:
    text = "\\documentclass{article}\n\\begin{document}\n\\section{Ropes}\nText % comment\n\\end{document}\n"
    (tmp_path / "a.tex").write_text(text)
    (document,) = read(str(tmp_path)).documents
    assert (document.text, document.format) == (text, "latex")


@pytest.mark.parametrize(("name", "package"), [("a.pdf", "pypdf"), ("a.docx", "mammoth"), ("a.warc.gz", "warcio")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    found: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(
        "tasks.ingest.reading.containers.packages.find_spec", lambda one: None if one == package else found(one)
    )
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b.txt").write_text("text")
    extra = name.split(".")[1]
    with pytest.raises(UserError, match=rf"{name} cannot be read .* `pip install 'ropeway\[{extra}\]'`"):
        plan_corpus(CorpusParams(sources=(str(tmp_path),)))
    without: Any = {"uri": str(tmp_path), "exclude": ("a.*",)}
    assert plan_corpus(CorpusParams(sources=(without,))).num_files == 1
