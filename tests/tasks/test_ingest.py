"""Ingest reads what it can, refuses the rest with a reason, and keeps the held-out side clean."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_schemas.errors import UserError
from data_schemas.params import CorpusParams, CorpusSource
from data_schemas.tables import DOCUMENTS, QUARANTINE
from tasks.ingest import records
from tasks.ingest.fingerprint import corpus_fingerprint
from tasks.ingest.sources import list_files
from tasks.ingest.split import split_of
from tasks.ingest.stage import write_documents


def ingest(tmp_path: Path, *sources: Any, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """(summary, documents, quarantine) of a corpus."""
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    summary = write_documents(CorpusParams(sources=sources, **{"heldout_fraction": 0.5, **options}), out, lambda _: None)
    documents = pq.read_table(out / "documents.parquet")
    assert documents.schema.equals(DOCUMENTS)
    quarantine = pq.read_table(out / "quarantine.parquet")
    assert quarantine.schema.equals(QUARANTINE)
    return summary, documents.to_pylist(), quarantine.to_pylist()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(8):
        (folder / "deep" / f"{number}.txt").write_text(f"Document number {number}.\n")
    return folder


def names(folder: Path, **options: Any) -> list[str]:
    return [file.relative for file in list_files([CorpusSource(uri=str(folder), **options)]).files]


def test_text_is_kept_exactly_but_for_the_byte_order_mark(corpus: Path, tmp_path: Path) -> None:
    (corpus / "a.md").write_bytes("\ufeffone\r\ntwo\rthree\n\u2028é𝄞".encode())
    _, documents, _ = ingest(tmp_path, str(corpus))
    first = documents[0]
    assert first["text"] == "one\r\ntwo\rthree\n\u2028é𝄞"
    assert first["num_bytes"] == len(first["text"].encode())
    assert (first["source_uri"], first["record"], first["work"]) == (f"{corpus}/a.md", 0, "a")
    assert first["content_hash"].startswith(first["doc_id"])
    assert len(first["doc_id"]) == 16


def test_json_lines_give_one_document_a_line(corpus: Path, tmp_path: Path) -> None:
    lines = [
        {"text": "first", "work": "Emma", "licence": "CC0-1.0", "id": "e1"},
        {"text": "second"},
        {"text": "third", "work": 7, "licence": None},
    ]
    (corpus / "b.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)) + "\n")
    _, documents, _ = ingest(tmp_path, {"uri": str(corpus / "b.jsonl"), "licence": "MIT"}, heldout_fraction=0.5, split_seed=1)
    assert [(d["text"], d["record"], d["work"], d["licence"]) for d in documents] == [
        ("first", 1, "Emma", "CC0-1.0"),
        ("second", 3, "b.jsonl:3", "MIT"),
        ("third", 5, "7", "MIT"),
    ]
    assert documents[0]["source_uri"].endswith("b.jsonl#e1")


def test_every_kind_of_bad_input_goes_to_quarantine(corpus: Path, tmp_path: Path) -> None:
    (corpus / "latin.txt").write_bytes(b"caf\xe9")
    (corpus / "nul.txt").write_bytes(b"a\0b")
    (corpus / "blank.txt").write_bytes(b" \r\n\t\n")
    (corpus / "outside.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "secret.txt").write_text("not of this corpus")
    (corpus / "dangling.txt").symlink_to(corpus / "nowhere")
    os.mkfifo(corpus / "pipe.txt")
    bad_lines = [
        b'{"text": ',
        b"[1]",
        b'{"tekst": "x"}',
        b'{"text": 3}',
        rb'{"text": "\ud800"}',
        rb'{"text": "\u0000"}',
        b"\xff",
    ]
    (corpus / "lines.jsonl").write_bytes(b"\n".join([*bad_lines, b"[" * 100_000, b'{"text": "good"}']))
    summary, documents, quarantine = ingest(tmp_path, str(corpus), max_quarantined_fraction=0.9)
    reasons = {(Path(q["source_uri"]).name, q["record"]): q["reason"] for q in quarantine}
    assert reasons == {
        ("latin.txt", 0): "invalid_utf8",
        ("nul.txt", 0): "nul_bytes",
        ("blank.txt", 0): "empty",
        ("outside.txt", 0): "outside_root",
        ("dangling.txt", 0): "unreadable",
        ("pipe.txt", 0): "unreadable",
        ("lines.jsonl", 1): "invalid_json",
        ("lines.jsonl", 2): "invalid_json",
        ("lines.jsonl", 3): "missing_text",
        ("lines.jsonl", 4): "not_text",
        ("lines.jsonl", 5): "lone_surrogates",
        ("lines.jsonl", 6): "nul_bytes",
        ("lines.jsonl", 7): "invalid_utf8",
        ("lines.jsonl", 8): "invalid_json",
    }
    assert "good" in [d["text"] for d in documents]
    assert "not of this corpus" not in [d["text"] for d in documents]
    assert sum(summary["quarantined"].values()) == len(quarantine) == len(reasons)


def test_what_is_too_large_is_refused_without_losing_its_neighbours(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_DOCUMENT_BYTES", 40)
    (corpus / "big.txt").write_text("x" * 41)
    (corpus / "big.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in ("before", "y" * 90, "after")))
    _, documents, quarantine = ingest(tmp_path, str(corpus))
    assert {(Path(q["source_uri"]).name, q["record"], q["reason"]) for q in quarantine} == {
        ("big.txt", 0, "too_large"),
        ("big.jsonl", 2, "too_large"),
    }
    assert {"before", "after"} <= {d["text"] for d in documents}


def test_globs_reach_the_right_files(corpus: Path) -> None:
    (corpus / "top.txt").write_text("t")
    (corpus / "deep" / "er" / "0.txt").write_text("t")
    (corpus / "deep" / "er" / "z.md").write_text("t")
    assert "top.txt" in names(corpus)  # `**/` also stands for no folder at all
    assert names(corpus, include=("*.txt",)) == ["top.txt"]
    assert names(corpus, include=("deep/*.txt",), exclude=("deep/[1-9].txt",)) == ["deep/0.txt"]
    assert names(corpus, include=("**/*.md", "top.*")) == ["deep/er/z.md", "top.txt"]
    assert names(corpus, exclude=("deep/**",)) == ["top.txt"]
    assert names(corpus, include=("deep/[!1-9].tx?",)) == ["deep/0.txt"]
    listed = list_files([CorpusSource(uri=f"{corpus}/deep/*/*.txt")]).files
    assert [(f.relative, f.uri) for f in listed] == [("er/0.txt", f"{corpus}/deep/er/0.txt")]


def test_a_file_a_file_uri_and_an_odd_name_are_read(corpus: Path, tmp_path: Path) -> None:
    odd = corpus / "a b[1].txt"
    odd.write_text("odd")
    _, documents, _ = ingest(
        tmp_path, str(odd), f"file://{corpus}/deep/0.txt", f"file://{corpus}/a%20b%5B1%5D.txt", heldout_fraction=0.6
    )
    assert {d["text"] for d in documents} == {"odd", "Document number 0.\n"}


def test_a_file_name_that_is_not_utf8_is_kept_readable(corpus: Path, tmp_path: Path) -> None:
    with open(os.fsencode(corpus) + b"/caf\xe9.txt", "w") as file:
        file.write("odd name")
    _, documents, _ = ingest(tmp_path, str(corpus))
    assert [d["work"] for d in documents if d["text"] == "odd name"] == ["caf\ufffd"]


def test_works(corpus: Path, tmp_path: Path) -> None:
    (corpus / "v1.2").mkdir()
    (corpus / "v1.2" / "x.txt").write_text("dotted folder")
    (corpus / "solo.txt").write_text("alone")
    works = {d["text"]: d["work"] for d in ingest(tmp_path, {"uri": str(corpus), "work_by": "top_level"})[1]}
    assert works["Document number 3.\n"] == "deep"
    assert works["dotted folder"] == "v1.2"
    assert works["alone"] == "solo"
    by_file = {d["text"]: d["work"] for d in ingest(tmp_path, str(corpus))[1]}
    assert by_file["Document number 3.\n"] == "deep/3"


def test_split_follows_the_work_alone(corpus: Path, tmp_path: Path) -> None:
    _, documents, _ = ingest(tmp_path, str(corpus), split_seed=5)
    assert {d["split"] for d in documents} == {"train", "heldout"}
    assert all(d["split"] == split_of(d["work"], 0.5, 5) for d in documents)


@pytest.mark.parametrize("first", ["train", "heldout"])
def test_a_text_on_both_sides_stays_on_the_held_out_side(tmp_path: Path, first: str) -> None:
    sides = {side: next(w for w in "abcdefgh" if split_of(w, 0.5, 0) == side) for side in ("train", "heldout")}
    order = [first, "train" if first == "heldout" else "heldout"]
    lines = [{"text": "twice", "work": sides[side]} for side in order]
    lines += [{"text": side, "work": sides[side]} for side in order] + [{"text": "twice", "work": sides["train"]}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    summary, documents, _ = ingest(tmp_path, str(tmp_path / "x.jsonl"))
    assert [d["split"] for d in documents if d["text"] == "twice"] == ["heldout"]
    assert summary["num_duplicates"] == 2
    assert summary["num_documents"] == 3


def test_the_first_of_equal_texts_wins(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "copy")
    summary, documents, _ = ingest(tmp_path, str(corpus), str(tmp_path / "copy"))
    assert all(d["source_uri"].startswith(f"{corpus}/") for d in documents)
    assert (summary["num_documents"], summary["num_duplicates"]) == (8, 8)


def test_short_documents_are_counted_not_refused(corpus: Path, tmp_path: Path) -> None:
    (corpus / "short.txt").write_text("é")
    summary, documents, quarantine = ingest(tmp_path, {"uri": str(corpus), "min_bytes": 3})
    assert (summary["num_skipped_short"], len(documents), quarantine) == (1, 8, [])


def test_ids_order_and_fingerprint_do_not_depend_on_the_place(corpus: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "zz"
    shutil.copytree(corpus, moved)
    here, there = ingest(tmp_path, str(corpus))[1], ingest(tmp_path, str(moved))[1]
    keys = ("doc_id", "text", "work", "split")
    assert [[d[k] for k in keys] for d in here] == [[d[k] for k in keys] for d in there]
    params, moved_params = CorpusParams(sources=(str(corpus),)), CorpusParams(sources=(str(moved),))
    before = corpus_fingerprint(params)
    assert before == corpus_fingerprint(moved_params)
    (moved / "deep" / "3.txt").write_text("changed")
    assert before != corpus_fingerprint(moved_params)
    (corpus / "deep" / "3.txt").rename(corpus / "deep" / "33.txt")
    assert before != corpus_fingerprint(params)


def test_two_runs_write_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    ingest(tmp_path, str(corpus))
    first = (tmp_path / "out" / "documents.parquet").read_bytes()
    ingest(tmp_path, str(corpus))
    assert (tmp_path / "out" / "documents.parquet").read_bytes() == first


def test_row_groups_bound_the_memory_and_lose_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ingest(tmp_path, str(corpus))[1]
    monkeypatch.setattr("tasks.ingest.stage._ROW_GROUP_BYTES", 30)
    assert ingest(tmp_path, str(corpus))[1] == whole
    assert pq.ParquetFile(tmp_path / "out" / "documents.parquet").num_row_groups > 2


def test_a_storage_root_inside_the_corpus_is_left_out(corpus: Path) -> None:
    params = CorpusParams(sources=(str(corpus),))
    before = corpus_fingerprint(params)
    (corpus / "storage").mkdir()
    (corpus / "storage" / "README.md").write_text("a release's card")
    assert corpus_fingerprint(params, leave_out=corpus / "storage") == before
    assert corpus_fingerprint(params) != before


def test_links_inside_the_corpus_are_followed_and_folders_outside_are_not(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").write_text("x")
    (corpus / "out").symlink_to(tmp_path / "other")
    (corpus / "loop").symlink_to(corpus)
    (corpus / "again.txt").symlink_to(corpus / "deep" / "0.txt")
    summary, documents, quarantine = ingest(tmp_path, str(corpus))
    assert [(q["source_uri"], q["reason"]) for q in quarantine] == [(f"{corpus}/out", "outside_root")]
    assert (len(documents), summary["num_duplicates"]) == (8, 1)


def test_the_standard_library_is_a_source(tmp_path: Path) -> None:
    params = CorpusParams(sources=({"uri": "stdlib:", "include": ("json/*.py", "this.py"), "work_by": "top_level"},))
    listed = {f.relative: f.uri for f in list_files(params.sources).files}
    assert listed["json/decoder.py"] == "stdlib:json/decoder.py"
    assert "this.py" in listed
    everything = [f.relative for f in list_files([CorpusSource(uri="stdlib:")]).files]
    assert "argparse.py" in everything
    assert not [name for name in everything if "site-packages" in name or not name.endswith(".py")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at-all", r"corpus\.sources\[0\] 'nowhere/at-all' does not exist"),
        ("nowhere/*.txt", "does not exist, correct the pattern"),
        ("s3://bucket/x", "not a local file or folder"),
        ({"uri": "{corpus}", "include": ["*.nothing"]}, r"empty: .*\*\.nothing.* matched 0 files"),
    ],
)
def test_a_wrong_source_is_one_sentence(corpus: Path, tmp_path: Path, source: Any, message: str) -> None:
    if isinstance(source, dict):
        source["uri"] = str(corpus)
    with pytest.raises(UserError, match=message) as raised:
        ingest(tmp_path, source)
    assert "\n" not in str(raised.value)


def test_a_corpus_of_unreadable_files_is_refused(corpus: Path, tmp_path: Path) -> None:
    for number in range(8):
        (corpus / f"{number}.txt").write_bytes(b"\xff")
    assert len(ingest(tmp_path, str(corpus), max_quarantined_fraction=0.5)[2]) == 8
    with pytest.raises(UserError, match=r"8 of 16 inputs \(50%\).*8 invalid_utf8"):
        ingest(tmp_path, str(corpus), max_quarantined_fraction=0.49)
    shutil.rmtree(corpus / "deep")
    with pytest.raises(UserError, match=r"empty: .* 8 inputs were refused \(8 invalid_utf8\)"):
        ingest(tmp_path, str(corpus), max_quarantined_fraction=1)


@pytest.mark.parametrize(("fraction", "missing"), [(1e-9, "held-out"), (1 - 1e-9, "training")])
def test_a_corpus_on_one_side_is_refused(corpus: Path, tmp_path: Path, fraction: float, missing: str) -> None:
    with pytest.raises(UserError, match=f"none is a {missing} one.*heldout_fraction"):
        ingest(tmp_path, str(corpus), heldout_fraction=fraction)


def test_a_folder_that_cannot_be_read_is_quarantined():
    was_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        corpus = Path(name)
        corpus.chmod(0o755)
        (corpus / "closed").mkdir()
        (corpus / "closed").chmod(0)
        (corpus / "a.txt").write_text("text")
        if was_root:
            os.seteuid(65534)  # root may read everything
        try:
            found = list_files([CorpusSource(uri=name)])
        finally:
            if was_root:
                os.seteuid(0)
        (corpus / "closed").chmod(0o700)
    assert [file.relative for file in found.files] == ["a.txt"]
    assert [(refused.source_uri, refused.reason) for refused in found.refused] == [(f"{name}/closed", "unreadable")]
