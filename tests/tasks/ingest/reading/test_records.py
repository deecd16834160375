"""Documents from files and lines, and a reason for each that cannot be one."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.params import CorpusSource
from tasks.ingest.reading.json_lines import line_cuts, read_json_lines, split_lines
from tasks.ingest.reading.records import Document, Origin, Refused
from tests.tasks.ingest.reading_example import read

ORIGIN = Origin("x.jsonl", "x.jsonl", CorpusSource(uri="x.jsonl"))


def test_text_is_kept_exactly_but_for_the_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("\ufeffone\r\ntwo\rthree\n\u2028é𝄞".encode())
    (document,) = read({"uri": str(tmp_path), "name": "mine", "licence": "MIT"}).documents
    assert document.text == "one\r\ntwo\rthree\n\u2028é𝄞"
    assert (document.source, document.source_uri, document.record) == ("mine", f"{tmp_path}/a.md", 0)
    assert (document.work, document.licence, document.format, document.language) == ("a", "MIT", "markdown", "und")
    assert (document.byte_start, document.byte_end) == (0, (tmp_path / "a.md").stat().st_size)
    assert document.content_hash.startswith(document.doc_id)
    assert len(document.doc_id) == 16


def test_json_lines_give_one_document_a_line_with_its_place(tmp_path: Path) -> None:
    lines = [
        {"text": "first", "work": "Emma", "licence": "CC0-1.0", "id": "e1"},
        {"text": "second é"},
        {"text": "third", "work": 7, "licence": None, "license": "Apache-2.0"},
    ]
    path = tmp_path / "b.jsonl"
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)) + "\n")
    documents = read({"uri": str(path), "licence": "MIT"}).documents
    assert [(d.text, d.record, d.work, d.licence) for d in documents] == [
        ("first", 1, "Emma", "CC0-1.0"),
        ("second é", 3, f"sha256:{hashlib.sha256('second é'.encode()).hexdigest()[:16]}", "MIT"),
        ("third", 5, "7", "Apache-2.0"),
    ]
    assert documents[0].source_uri.endswith("b.jsonl#e1")
    data = path.read_bytes()
    spans = [data[d.byte_start : d.byte_end] for d in documents]
    assert [json.loads(span.decode("utf-8-sig")) for span in spans] == lines


def test_every_kind_of_bad_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "nul.txt").write_bytes(b"a\0b")
    (tmp_path / "blank.txt").write_bytes(b" \r\n\t\n")
    (tmp_path / "nothing.txt").write_bytes(b"")
    (tmp_path / "mojibake.txt").write_text("\ufffdber die Br\ufffdcke")
    bad_lines = [
        b'{"text": ',
        b"[1]",
        b'{"tekst": "x"}',
        b'{"text": 3}',
        rb'{"text": "\ud800"}',
        rb'{"text": "\u0000"}',
        b"\xff",
        b"[" * 100_000,
        b'{"text": " "}',
        b'\xef\xbb\xbf{"text": "a mark in the middle"}',
        b'{"text": null}',
    ]
    (tmp_path / "lines.jsonl").write_bytes(b"\n".join([*bad_lines, b'{"text": "good"}']))
    found = read(str(tmp_path))
    assert found.reasons == {
        ("latin.txt", 0): "undecodable",
        ("nul.txt", 0): "nul_bytes",
        ("blank.txt", 0): "empty",
        ("nothing.txt", 0): "empty",
        ("mojibake.txt", 0): "undecodable",
        ("lines.jsonl", 1): "invalid_json",
        ("lines.jsonl", 2): "invalid_json",
        ("lines.jsonl", 3): "missing_text",
        ("lines.jsonl", 4): "not_text",
        ("lines.jsonl", 5): "lone_surrogates",
        ("lines.jsonl", 6): "nul_bytes",
        ("lines.jsonl", 7): "undecodable",
        ("lines.jsonl", 8): "invalid_json",
        ("lines.jsonl", 9): "empty",
        ("lines.jsonl", 10): "invalid_json",
        ("lines.jsonl", 11): "not_text",
    }
    assert found.texts == ["good"]
    assert all(refused.detail for refused in found.refused)


def test_what_is_too_large_is_refused_without_losing_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("x" * 41)
    (tmp_path / "fits.txt").write_text("x" * 40)
    lines = [json.dumps({"text": t}) for t in ("before", "y" * 90, "after", "é" * 14)]  # the last: 42 bytes unescaped
    (tmp_path / "big.jsonl").write_text("\n".join([*lines[:3], '{"text": "' + "\\u00e9" * 4 + '"}']))
    found = read(str(tmp_path), max_document_megabytes=40e-6)
    assert found.reasons == {("big.txt", 0): "too_large", ("big.jsonl", 2): "too_large"}
    assert found.texts == ["before", "after", "éééé", "x" * 40]


def test_utf16_lines_are_read_without_spans(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "naïve 文字"}\n\n{"text": "ਊ second"}\n', encoding="utf-16")
    documents = read(str(tmp_path)).documents  # the letter ਊ holds the byte of a line feed
    assert [(d.text, d.record, d.byte_start) for d in documents] == [("naïve 文字", 1, None), ("ਊ second", 3, None)]


def test_short_documents_are_skipped_not_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("é")
    (tmp_path / "long.txt").write_text("éé")
    found = read({"uri": str(tmp_path), "min_bytes": 3})
    assert (found.texts, found.refused) == (["éé"], [])
    assert [(s.source_uri, s.reason) for s in found.skipped] == [(f"{tmp_path}/short.txt", "short")]


lines_of_bytes = st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=12)


@given(lines_of_bytes, st.integers(1, 9), st.integers(1, 8), st.booleans())
def test_lines_do_not_depend_on_the_blocks_they_come_in(
    lines: list[bytes], block_bytes: int, max_bytes: int, ends: bool
) -> None:
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    blocks = (data[i : i + block_bytes] for i in range(0, len(data), block_bytes))
    found = list(split_lines(blocks, max_bytes, 0, 1))
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [data[line.start : line.end] for line in found] == expected
    assert [line.number for line in found] == list(range(1, len(expected) + 1))
    assert all(line.data == (whole if len(whole) <= max_bytes else None) for line, whole in zip(found, expected, strict=True))


@given(lines_of_bytes, st.integers(1, 9), st.integers(1, 20))
def test_cuts_are_line_starts_with_their_numbers(lines: list[bytes], block_bytes: int, step: int) -> None:
    data = b"\n".join(lines)
    cuts: list[tuple[int, int]] = []
    target = step
    for position in range(0, len(data), block_bytes):
        block = data[position : position + block_bytes]
        found, target = line_cuts(block, position, data.count(b"\n", 0, position), target, step)
        cuts += found
    starts = [0, *(i + 1 for i, byte in enumerate(data) if byte == 10)]
    expected: list[tuple[int, int]] = []
    wanted = step
    for number, start in enumerate(starts, 1):
        if start >= wanted:
            expected.append((start, number))
            wanted = start + step
    assert cuts == expected


records = st.one_of(
    st.text(max_size=20).map(lambda t: json.dumps({"text": t})),
    st.text(max_size=20).map(lambda t: json.dumps({"text": t}, ensure_ascii=False) if t.isprintable() else "{}"),
    st.sampled_from(["", " ", "{", "[]", '{"text": 1}', "\ufeff{}"]),
)


@given(st.lists(records, max_size=15), st.data())
def test_any_cutting_at_lines_gives_the_same_documents(lines: list[str], data: st.DataObject) -> None:
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    whole = list(read_json_lines(iter([content]), ORIGIN, 1000))
    starts = [0, *(i + 1 for i, byte in enumerate(content) if byte == 10)]
    cuts = sorted(data.draw(st.sets(st.sampled_from(starts))) | {0})
    found: list[Document | Refused] = []
    for start, end in zip(cuts, [*cuts[1:], len(content)], strict=True):
        number = content.count(b"\n", 0, start) + 1
        found += read_json_lines(iter([content[start:end]]), ORIGIN, 1000, start, number)
    assert found == whole


@pytest.mark.parametrize("text", ["a\x1b[31mred\x1b[0m log", "form\ffeed", "soft\xadhyphen", "a\u200bb", "x" * 100 + "\ufffd"])
def test_usual_characters_are_not_taken_for_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert read(str(tmp_path)).texts == [text]
