"""Each format, plain and compressed, gives back what was written; tables also in row groups, batches and odd types."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data_schemas.params import CorpusParams
from tasks.ingest import corpus_units as units
from tasks.ingest.corpus_units import plan_corpus, read_unit
from tasks.ingest.reading.records import Document
from tests.tasks.ingest.reading_example import read

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
FORMATS = {".txt": "plain", ".md": "markdown", ".rst": "rst", ".py": "python", ".go": "code"}


def as_json_lines(texts: list[str]) -> bytes:
    return "\n".join(json.dumps({"text": text}) for text in texts).encode()


def as_parquet(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array(texts, pa.string()), "other": range(len(texts))}), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


def as_arrow(texts: list[str], is_file: bool) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"text": pa.array(texts, pa.string())})
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue().to_pybytes()


WRITERS: dict[str, Callable[[list[str]], bytes]] = {
    ".jsonl": as_json_lines,
    ".parquet": as_parquet,
    ".stream.arrow": lambda texts: as_arrow(texts, False),
    ".file.arrow": lambda texts: as_arrow(texts, True),
}

usable = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1, max_size=60).filter(
    lambda text: not text.isspace() and "\ufffd" not in text
)
in_one_folder = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", FORMATS)
@given(text=usable)
@example(text="\ufeff")
@in_one_folder
def test_a_whole_file_round_trips(tmp_path: Path, suffix: str, compression: str, text: str) -> None:
    path = tmp_path / f"a{suffix}{compression}"
    path.write_bytes(COMPRESSIONS[compression](text.encode()))
    found = read({"uri": str(path), "name": "s"})
    if not text.removeprefix("\ufeff").strip():  # a byte order mark alone is no text
        assert found.reasons == {(path.name, 0): "empty"}
        return
    (document,) = found.documents
    assert (document.text, document.format, document.work) == (text.removeprefix("\ufeff"), FORMATS[suffix], "a")
    assert document.byte_end == len(text.encode())


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", WRITERS)
@given(texts=st.lists(usable, max_size=7))
@in_one_folder
def test_records_round_trip(tmp_path: Path, suffix: str, compression: str, texts: list[str]) -> None:
    path = tmp_path / f"a{suffix}{compression}"
    path.write_bytes(COMPRESSIONS[compression](WRITERS[suffix](texts)))
    found = read({"uri": str(path), "name": "s"})
    assert found.refused == []
    assert [(d.text, d.record) for d in found.documents] == [(text, i) for i, text in enumerate(texts, 1)]


@pytest.mark.parametrize("suffix", WRITERS)
@given(texts=st.lists(usable, max_size=12), unit_bytes=st.integers(1, 400))
@in_one_folder
def test_any_size_of_units_gives_the_same_documents(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, texts: list[str], unit_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("units")
    (folder / f"a{suffix}").write_bytes(WRITERS[suffix](texts))
    (folder / f"b{suffix}.gz").write_bytes(gzip.compress(WRITERS[suffix](texts[::-1])))
    (folder / "c.txt").write_text("a file")
    source = {"uri": str(folder), "name": "s"}
    whole = read(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "MIN_UNIT_BYTES", unit_bytes)
        cut = read(source)
    assert cut.documents == whole.documents
    assert cut.corpus.fingerprint == whole.corpus.fingerprint
    assert len(whole.corpus.units) == 1
    assert len(texts) < 4 or unit_bytes > 50 or len(cut.corpus.units) > 3
    assert [unit.index for unit in cut.corpus.units] == list(range(len(cut.corpus.units)))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_html_page_becomes_markdown_without_its_navigation(tmp_path: Path, compression: str) -> None:
    sentences = " ".join(f"Sentence {i} of the article is about rope bridges in deep valleys." for i in range(12))
    page = f"""<html><head><title>T</title><script>var x = 1;</script></head><body>
    <nav><a href="/">Home</a> <a href="/about">About us</a></nav>
    <main><article><h1>Bridges</h1><p>{sentences}</p><h2>Ropes</h2><p>{sentences} Crème brûlée.</p></article></main>
    <footer>Copyright, cookies and terms</footer></body></html>"""
    (tmp_path / f"page.html{compression}").write_bytes(COMPRESSIONS[compression](page.encode()))
    (document,) = read(str(tmp_path)).documents
    assert document.format == "markdown"
    lines = document.text.splitlines()
    assert "# Bridges" in lines
    assert "## Ropes" in lines
    assert document.text.count(sentences) == 2
    assert "Crème brûlée" in document.text
    for noise in ("About us", "cookies", "var x"):
        assert noise not in document.text


def test_html_without_text_is_refused_and_a_declared_encoding_counts(tmp_path: Path) -> None:
    (tmp_path / "empty.html").write_text("<html><body><script>var x = 1;</script></body></html>")
    paragraph = "<p>" + "Žluťoučký kůň úpěl ďábelské ódy a večer se všichni sešli. " * 8 + "</p>"
    page = f"<html><head><meta charset=windows-1250></head><body><h1>Kůň</h1>{paragraph}</body></html>"
    (tmp_path / "czech.htm").write_bytes(page.encode("cp1250"))
    (tmp_path / "wrong.htm").write_bytes(page.replace("windows-1250", "ascii-but-not").encode("utf-8") + b"\xff")
    found = read(str(tmp_path))
    assert "Žluťoučký kůň" in found.texts[0]
    assert found.reasons == {("empty.html", 0): "empty", ("wrong.htm", 0): "undecodable"}


def test_a_page_made_to_be_slow_is_read_at_once(tmp_path: Path) -> None:
    paragraph = "<p>" + "A paragraph about rope bridges. " * 9 + "</p>"
    attributes = " ".join(f"a{i}='1'" for i in range(500_000))  # as it is, a tenth of them take a minute, and all of them hours
    page = f"<html><body><img src='data:image/png;base64,{'A' * 9000}'>{paragraph}<p {attributes}>The end.</p></body></html>"
    (tmp_path / "page.html").write_text(page)
    (text,) = read(str(tmp_path)).texts
    assert text.startswith("A paragraph about")
    assert text.rstrip().endswith("The end.")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_text_columns_of_any_type_with_labels_nulls_and_bad_rows(tmp_path: Path, kind: pa.DataType, suffix: str) -> None:
    table = pa.table(
        {
            "number": [1.5] * 4,
            "text": pa.array(["one", None, "two", "a\0b"]).cast(kind),
            "id": pa.array([7, 8, 9, None]),
            "license": ["MIT", None, None, None],
            "work": ["w", "w", None, None],
        }
    )
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    found = read({"uri": str(path), "licence": "CC0-1.0"})
    assert [(d.text, d.record, d.source_uri.split("#")[1], d.licence, d.work) for d in found.documents] == [
        ("one", 1, "7", "MIT", "w"),
        ("two", 3, "9", "CC0-1.0", f"a{suffix}#9"),
    ]
    assert found.reasons == {(f"a{suffix}", 2): "not_text", (f"a{suffix}", 4): "nul_bytes"}
    assert all((d.byte_start, d.byte_end) == (None, None) for d in found.documents)


def write_stream(path: Path, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_stream(path, batch.schema) as writer:
        writer.write_batch(batch)


def test_one_row_that_is_not_utf8_does_not_refuse_the_others(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", b"fine"]).view(pa.string())
    write_stream(tmp_path / "a.arrow", pa.RecordBatch.from_arrays([raw], ["text"]))
    pq.write_table(pa.table({"text": raw}), tmp_path / "b.parquet")
    found = read(str(tmp_path))
    assert found.texts == ["good", "fine"] * 2
    assert found.reasons == {("a.arrow", 2): "undecodable", ("b.parquet", 2): "undecodable"}


def test_offsets_that_point_outside_a_mapped_batch_are_found(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 4, 1 << 28, 8)))
    broken = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abcdefgh")])
    write_stream(tmp_path / "a.arrow", pa.RecordBatch.from_arrays([broken], ["text"]))
    assert read(str(tmp_path)).reasons == {("a.arrow", 1): "corrupt"}


@pytest.mark.parametrize("suffix", [".parquet", ".stream.arrow", ".file.arrow"])
def test_damaged_tables_are_corrupt(tmp_path: Path, suffix: str) -> None:
    data = WRITERS[suffix]([f"text {i}" * 50 for i in range(20)])
    (tmp_path / f"cut{suffix}").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / f"noise{suffix}").write_bytes(b"no table at all" * 9)
    found = read(str(tmp_path))
    assert {name: reason for (name, _), reason in found.reasons.items()} == {
        f"cut{suffix}": "corrupt",
        f"noise{suffix}": "corrupt",
    }
    assert found.texts == [f"text {i}" * 50 for i in range(len(found.texts))]
    assert bool(found.texts) == (suffix == ".stream.arrow")  # the others have their table of contents at the end


@pytest.mark.parametrize(("table", "reason"), [({"body": ["x"]}, "missing_text"), ({"text": [1]}, "not_text")])
def test_a_table_without_a_text_column_is_refused_once(tmp_path: Path, table: Any, reason: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    write_stream(tmp_path / "b.arrow", pa.RecordBatch.from_pydict(table))
    assert read(str(tmp_path)).reasons == {("a.parquet", 0): reason, ("b.arrow", 0): reason}
    assert read({"uri": str(tmp_path), "text_field": "body"}).texts == ["x"] * 2 * ("body" in table)


def test_rows_that_are_too_long_are_refused_alone(tmp_path: Path) -> None:
    texts = ["short", "x" * 200, "also short"]
    for suffix in (".parquet", ".stream.arrow"):
        (tmp_path / f"a{suffix}").write_bytes(WRITERS[suffix](texts))
    found = read(str(tmp_path), max_document_megabytes=1e-4)
    assert found.texts == ["short", "also short"] * 2
    assert found.reasons == {("a.parquet", 2): "too_large", ("a.stream.arrow", 2): "too_large"}


def test_a_row_group_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 20_000_000]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert read(str(tmp_path)).reasons == {("a.parquet", 1): "decompression_bomb"}


def peak_of_reading(path: Path, **options: Any) -> tuple[Counter[str], int]:
    """(what came out, most bytes that Arrow held)."""
    params = CorpusParams(sources=(str(path),), **options)
    before = pa.total_allocated_bytes()
    counts: Counter[str] = Counter()
    peak = 0
    for unit in plan_corpus(params).units:
        peak = max(peak, pa.total_allocated_bytes() - before)
        for found in read_unit(unit, params):
            counts[getattr(found, "reason", "document")] += 1
            peak = max(peak, pa.total_allocated_bytes() - before)
    return counts, peak


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_columns_that_nobody_asked_for_are_not_inflated(tmp_path: Path, is_file: bool, codec: str) -> None:
    table = pa.table(
        {
            "before": pa.array([[{"a": "x"}], None, []]),
            "blob": pa.array([bytes(30_000_000)] * 3, pa.large_binary()),
            "view": pa.array(["x" * 90, "y", None], pa.string_view()),
            "text": ["one", "two", "three"],
        }
    )
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(tmp_path / "a.arrow", table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    del table
    assert peak_of_reading(tmp_path / "a.arrow") == ({"document": 3}, ANY_SMALL)
    assert read(str(tmp_path)).texts == ["one", "two", "three"]


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("as_dictionary", [True, False])
def test_a_record_batch_that_is_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, is_file: bool, as_dictionary: bool
) -> None:
    texts = pa.array(["x" * 20_000_000])
    table = pa.table({"text": texts.dictionary_encode() if as_dictionary else texts})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(tmp_path / "a.arrow", table.schema, options=options) as writer:
        writer.write_table(table)
    del table, texts
    assert peak_of_reading(tmp_path / "a.arrow") == ({"decompression_bomb": 1}, ANY_SMALL)
    assert peak_of_reading(tmp_path / "a.arrow", max_expansion=1e6)[0] == {"document": 1}


class _AnySmall:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and other < 1_000_000


ANY_SMALL = _AnySmall()


@pytest.mark.slow
def test_values_that_repeat_the_start_of_others_do_not_fill_the_memory(tmp_path: Path) -> None:
    start = random.Random(0).randbytes(200_000).hex()
    texts = [f"{start} {row}" for row in range(300)]  # 120 MB
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(
        tmp_path / "a.parquet", schema, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"}, compression="none"
    ) as writer:
        writer.write_table(pa.table({"text": texts}, schema=schema))
    del texts
    assert (tmp_path / "a.parquet").stat().st_size < 450_000
    counts, peak = peak_of_reading(tmp_path / "a.parquet")
    assert set(counts) == {"document", "decompression_bomb"}
    assert counts["decompression_bomb"] == 1
    assert 150 < counts["document"] < 250  # some 200 times what is stored
    assert peak < 80_000_000
    counts, peak = peak_of_reading(tmp_path / "a.parquet", max_expansion=1000)
    assert counts == {"document": 300}
    assert peak < 80_000_000


@pytest.mark.slow
def test_a_long_value_repeated_by_a_dictionary_does_not_fill_the_memory(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = [rng.randbytes(200_000).hex() for _ in range(2)]
    repeated = pa.DictionaryArray.from_arrays(pa.array([row % 2 for row in range(2000)], pa.int32()), texts)
    pq.write_table(pa.table({"text": repeated}), tmp_path / "a.parquet", compression="none", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 1_000_000  # of 800 MB of text
    before = pa.total_allocated_bytes()
    peak = 0
    params = CorpusParams(sources=(str(tmp_path / "a.parquet"),))
    for unit in plan_corpus(params).units:
        for number, found in enumerate(read_unit(unit, params)):
            assert isinstance(found, Document)
            assert found.text == texts[number % 2]
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert number == 1999
    assert peak < 80_000_000
