"""Which files a source consists of, and that a fingerprint follows names and content alone."""

import gzip
import json
import os
import shutil
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from data_schemas.errors import UserError
from data_schemas.params import DEFAULT_INCLUDE, CorpusParams, CorpusSource, PipelineParams
from data_schemas.storage import Storage
from tasks.ingest.corpus_units import plan_corpus, refuse_missing
from tasks.ingest.documents_stage import run
from tasks.ingest.listing.sources import list_files
from tasks.ingest.reading import file_formats
from tasks.work import local_workers
from tests.tasks.ingest.reading_example import read


def names(folder: Path, **options: Any) -> list[str]:
    return [file.relative for file in list_files([CorpusSource(uri=str(folder), **options)]).files]


def fingerprint(folder: Path, **options: Any) -> str:
    return plan_corpus(CorpusParams(sources=({"uri": str(folder), "name": "corpus"},)), **options).fingerprint


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


def test_a_pattern_also_matches_the_compressed_file(corpus: Path) -> None:
    for name in ("a.txt.gz", "b.md.zst", "c.gz", "d.txt.bz2"):
        (corpus / name).write_bytes(b"")
    assert names(corpus, exclude=("deep/**",)) == ["a.txt.gz", "b.md.zst"]
    assert [f.relative for f in list_files([CorpusSource(uri=f"{corpus}/*.txt")]).files] == ["a.txt.gz"]


def test_a_file_a_file_uri_and_an_odd_name_are_read(corpus: Path) -> None:
    odd = corpus / "a b[1].txt"
    odd.write_text("odd")
    uris = (str(odd), f"file://{corpus}/deep/0.txt", f"file://{corpus}/a%20b%5B1%5D.txt")
    found = read(*({"uri": uri, "name": f"s{i}"} for i, uri in enumerate(uris)))
    assert found.texts == ["odd", "Document number 0.\n", "odd"]


def test_a_file_name_that_is_not_utf8_is_kept_readable(corpus: Path) -> None:
    with open(os.fsencode(corpus) + b"/caf\xe9.txt", "w") as file:
        file.write("odd name")
    assert [d.work for d in read(str(corpus)).documents if d.text == "odd name"] == ["caf\ufffd"]


def test_works(corpus: Path) -> None:
    (corpus / "v1.2").mkdir()
    (corpus / "v1.2" / "x.txt").write_text("dotted folder")
    (corpus / "solo.txt").write_text("alone")
    works = {d.text: d.work for d in read({"uri": str(corpus), "work_by": "top_level"}).documents}
    assert works["Document number 3.\n"] == "deep"
    assert works["dotted folder"] == "v1.2"
    assert works["alone"] == "solo"
    by_file = {d.text: d.work for d in read(str(corpus)).documents}
    assert by_file["Document number 3.\n"] == "deep/3"


def test_records_below_one_folder_are_one_work_if_asked_for(tmp_path: Path) -> None:
    """Chapters of a book must not stand on both sides of the split because they are lines or rows of a file."""
    for book in ("moby", "emma"):
        (tmp_path / "books" / book).mkdir(parents=True)
        texts = {"text": [f"{book}, chapter {i}" for i in range(3)]}
        pq.write_table(pa.table(texts), tmp_path / "books" / book / "rows.parquet")
        feather.write_feather(pa.table(texts), tmp_path / "books" / book / "rows.arrow")
        lines = [json.dumps({"text": text}) for text in texts["text"]]
        (tmp_path / "books" / book / "lines.jsonl").write_text("\n".join(lines))
    (tmp_path / "books" / "walden.jsonl").write_text('{"text": "pond"}\n{"text": "letter", "work": "Letters"}')
    source = {"uri": str(tmp_path / "books"), "work_by": "top_level"}
    works = {(Path(d.source_uri).name, d.text.split(",")[0]): d.work for d in read(source).documents}
    kinds = ("rows.parquet", "rows.arrow", "lines.jsonl")
    assert works == {(kind, book): book for kind in kinds for book in ("moby", "emma")} | {
        ("walden.jsonl", "pond"): "walden",
        ("walden.jsonl", "letter"): "Letters",
    }
    by_file = [d.work for d in read(source | {"work_by": "file"}).documents if d.source_uri.endswith("emma/lines.jsonl")]
    assert len(set(by_file)) == 3  # each record is one of its own


def test_a_data_set_has_no_folders_to_be_works(tmp_path: Path) -> None:
    params = CorpusParams(sources=({"uri": f"hf:{tmp_path}", "work_by": "top_level"},))
    for look in (plan_corpus, refuse_missing):
        with pytest.raises(UserError, match=r"corpus\.sources\[0\] 'hf:.*no folders.*`work` field"):
            look(params)


def test_order_and_fingerprint_do_not_depend_on_place_or_time(corpus: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "zz"
    shutil.copytree(corpus, moved)
    os.utime(moved / "deep" / "3.txt", (0, 0))
    here, there = read(str(corpus)).documents, read(str(moved)).documents
    assert [(d.doc_id, d.text, d.work) for d in here] == [(d.doc_id, d.text, d.work) for d in there]
    before = fingerprint(corpus)
    assert before == fingerprint(moved)
    (moved / "deep" / "3.txt").write_text("changed")
    assert before != fingerprint(moved)
    (corpus / "deep" / "3.txt").rename(corpus / "deep" / "33.txt")
    assert before != fingerprint(corpus)


def test_the_fingerprint_has_the_sources_name_in_it(corpus: Path) -> None:
    one, two = (plan_corpus(CorpusParams(sources=({"uri": str(corpus), "name": name},))).fingerprint for name in "ab")
    assert one != two


def test_a_storage_root_inside_the_corpus_is_left_out(corpus: Path) -> None:
    before = fingerprint(corpus)
    (corpus / "storage").mkdir()
    (corpus / "storage" / "README.md").write_text("a release's card")
    assert fingerprint(corpus, leave_out=corpus / "storage") == before
    assert fingerprint(corpus) != before


@pytest.mark.parametrize("storage", ["", "..", "deep/.."])
def test_a_corpus_in_the_storage_root_is_refused_at_once(corpus: Path, storage: str) -> None:
    with pytest.raises(UserError, match=r"corpus\.sources\[0\] .* lies in the storage root .*: move it out of there") as raised:
        fingerprint(corpus, leave_out=corpus / storage)
    assert "\n" not in str(raised.value)
    assert fingerprint(corpus, leave_out=corpus.parent / "corp") == fingerprint(corpus)


def test_every_known_format_is_read_in_upper_and_lower_case(tmp_path: Path) -> None:
    asked_for = {".json", ".csv", ".tsv"}  # more often settings and figures than documents
    suffixes = {*file_formats._PROSE, *file_formats._CONTAINERS} - asked_for
    assert {f"**/*{suffix}" for suffix in suffixes} == set(DEFAULT_INCLUDE)
    (tmp_path / "BIG.TXT").write_text("big")
    (tmp_path / "Odd.Txt.GZ").write_bytes(gzip.compress(b"odd"))
    (tmp_path / "x.ndjson").write_text('{"text": "a line"}')
    (tmp_path / "y.xhtml").write_text("<html><body><p>" + "A paragraph about ropes. " * 9 + "</p></body></html>")
    (tmp_path / "z.markdown").write_text("# Heading")
    found = read(str(tmp_path))
    assert [d.source_uri.rsplit("/")[-1] for d in found.documents] == sorted(p.name for p in tmp_path.iterdir())
    assert found.texts[:3] == ["big", "odd", "a line"]
    assert found.corpus.num_unmatched == 0
    with pytest.raises(UserError, match=r"no file matches `include` \*\.txt; there are 1 \.TXT, 1 \.Txt\.GZ"):
        names(tmp_path, include=("*.txt",))  # a pattern of the user's means what it says
    assert names(tmp_path, include=("*.TXT",)) == ["BIG.TXT"]


def test_files_that_no_pattern_is_about_are_counted(corpus: Path) -> None:
    for name in ("a.csv", "deep/b.odt", "deep/er/c"):
        (corpus / name).write_text("not read")

    def num_unmatched(uri: str = str(corpus), **options: Any) -> int:
        return read({"uri": uri, **options}).corpus.num_unmatched

    assert num_unmatched() == 3
    assert num_unmatched(exclude=("**/*.csv", "deep/er/**")) == 1
    assert num_unmatched(include=("**/*.csv",)) == 10
    assert num_unmatched(repository="files") == 0
    assert num_unmatched(f"{corpus}/**/*.txt") == 0  # files are named, and no folder
    assert num_unmatched(f"{corpus}/deep/0.txt") == 0


def test_links_inside_the_corpus_are_followed_and_what_leads_out_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").write_text("not of this corpus")
    (corpus / "out").symlink_to(tmp_path / "other")
    (corpus / "out.txt").symlink_to(tmp_path / "other" / "x.txt")
    (corpus / "loop").symlink_to(corpus)
    (corpus / "again.txt").symlink_to(corpus / "deep" / "0.txt")
    found = read(str(corpus))
    assert found.reasons == {("out", 0): "outside_root", ("out.txt", 0): "outside_root"}
    assert found.texts.count("Document number 0.\n") == 2
    assert "not of this corpus" not in found.texts


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(corpus: Path) -> None:
    os.mkfifo(corpus / "pipe.txt")
    (corpus / "dangling.txt").symlink_to(corpus / "nowhere")
    expected = {("pipe.txt", 0): "unreadable", ("dangling.txt", 0): "unreadable"}
    if os.geteuid() == 0:
        os.mknod(corpus / "zero.txt", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero by another name
        expected["zero.txt", 0] = "unreadable"
    assert read(str(corpus)).reasons == expected
    with pytest.raises(UserError, match="does not exist"):
        read(str(corpus / "dangling.txt"))


def test_a_file_that_vanishes_after_planning_is_refused(corpus: Path) -> None:
    from tasks.ingest.corpus_units import read_unit

    params = CorpusParams(sources=(str(corpus),))
    units = plan_corpus(params).units
    (corpus / "deep" / "3.txt").unlink()
    found = [one for unit in units for one in read_unit(unit, params)]
    assert [(one.source_uri, one.reason, one.detail) for one in found if hasattr(one, "detail")] == [
        (f"{corpus}/deep/3.txt", "unreadable", "No such file or directory")
    ]


def test_a_folder_and_a_file_without_permission_are_quarantined() -> None:
    was_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        corpus = Path(name)
        corpus.chmod(0o755)
        (corpus / "closed").mkdir()
        (corpus / "closed").chmod(0)
        (corpus / "a.txt").write_text("text")
        (corpus / "b.txt").write_text("secret")
        (corpus / "b.txt").chmod(0)
        if was_root:
            os.seteuid(65534)  # root may read everything
        try:
            found = read(name)
        finally:
            if was_root:
                os.seteuid(0)
        (corpus / "closed").chmod(0o700)
    assert found.texts == ["text"]
    assert {r.source_uri: (r.reason, r.detail) for r in found.refused} == {
        f"{name}/closed": ("unreadable", "folder: Permission denied"),
        f"{name}/b.txt": ("unreadable", "Permission denied"),
    }


def test_the_standard_library_is_a_source() -> None:
    source = CorpusSource(uri="stdlib:", include=("json/*.py", "this.py"), work_by="top_level")
    listed = {f.relative: f.uri for f in list_files([source]).files}
    assert listed["json/decoder.py"] == "stdlib:json/decoder.py"
    assert "this.py" in listed
    everything = [f.relative for f in list_files([CorpusSource(uri="stdlib:")]).files]
    assert "argparse.py" in everything
    assert not [name for name in everything if "site-packages" in name or not name.endswith(".py")]


def test_the_installed_packages_are_a_source() -> None:
    source = CorpusSource(uri="packages:", include=("prefect/flows.py", "pyarrow/*.py"), exclude=("**/compute.py",))
    listed = {f.relative: f.uri for f in list_files([source]).files}
    assert listed["prefect/flows.py"] == "packages:prefect/flows.py"
    assert {"pyarrow/parquet.py", "pyarrow/dataset.py", "pyarrow/compute.py"} & listed.keys() == {"pyarrow/dataset.py"}
    with pytest.raises(UserError, match=r"'packages:': no file matches .* there are [0-9,]+ \.py"):
        list_files([CorpusSource(uri="packages:", include=("nowhere/**",))])
    for uri in ("packages:numpy", "packages:numpy/"):
        with pytest.raises(UserError, match=r"'packages:' and include \['numpy/\*\*/\*\.py'\]"):
            list_files([CorpusSource(uri=uri)])
    with pytest.raises(UserError, match=r"'stdlib:' and include \['json/\*\*/\*\.py'\]"):
        refuse_missing(CorpusParams(sources=("stdlib:json",)))


def test_packages_with_compiled_code_may_have_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: tmp_path / name for name in ("purelib", "platlib")}
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {name: str(folder) for name, folder in folders.items()})
    with pytest.raises(UserError, match=r"this Python has no folder .*purelib or .*platlib"):
        list_files([CorpusSource(uri="packages:")])
    for name, folder in folders.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "code.py").write_text("x = 1")
    assert [f.uri for f in list_files([CorpusSource(uri="packages:")]).files] == [
        "packages:platlib/code.py",
        "packages:purelib/code.py",
    ]
    folders["platlib"] = folders["purelib"]
    assert [f.uri for f in list_files([CorpusSource(uri="packages:")]).files] == ["packages:purelib/code.py"]


def test_prompts_that_are_not_there_are_refused_before_the_corpus_is_listed(tmp_path: Path) -> None:
    decontamination = {"prompt_files": ["nowhere/exam.jsonl"]}
    corpus: dict[str, Any] = {"sources": ["nowhere/at-all"], "decontamination": decontamination}
    given = {"run_name": "x", "model": {"base": "demo", "target_length": 512}, "storage": str(tmp_path), "corpus": corpus}
    params = PipelineParams.model_validate(given)
    with pytest.raises(UserError, match=r"'nowhere/exam\.jsonl'.* do not exist"):
        run(params, Storage(params.storage), lambda num_bytes: local_workers(1), lambda line: None)
    with pytest.raises(UserError, match=r"'nowhere/exam\.jsonl'.* do not exist"):
        refuse_missing(params.corpus)
    decontamination["enabled"] = False
    with pytest.raises(UserError, match=r"corpus\.sources\[0\]"):
        refuse_missing(PipelineParams.model_validate(given).corpus)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.XLS.gz", "convert it to CSV, JSON Lines or Parquet"),
        ("a.odt", "convert it to DOCX, Markdown or HTML"),
        ("a.mobi", "convert it to EPUB, PDF or text"),
    ],
)
def test_a_named_file_of_a_format_that_is_not_read_is_no_document(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_text('[{"text": "a record"}]')
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / name, f"deep/{name}")
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/named/{name}", b'[{"text": "a record"}]')
    for uri in (str(tmp_path / name), f"memory://named/{name}", f"zip://deep/{name}::{tmp_path}/all.zip"):
        for look in (plan_corpus, refuse_missing) if not uri.startswith("zip") else (plan_corpus,):
            with pytest.raises(UserError, match=rf"corpus\.sources\[0\] '.*{name}.*' is neither .*: {advice}\.$"):
                look(CorpusParams(sources=(uri,)))
    folder = {"uri": str(tmp_path), "repository": "files", "include": ("*.odt", "*.zip")}  # where any text file is read
    assert len(read(folder).documents) == name.endswith(".odt")
    memory.rm(f"/named/{name}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at-all", r"corpus\.sources\[0\] 'nowhere/at-all' does not exist"),
        ("nowhere/*.txt", "does not exist, correct the pattern"),
    ],
)
def test_a_wrong_source_is_one_sentence(source: str, message: str) -> None:
    for look in (plan_corpus, refuse_missing):
        with pytest.raises(UserError, match=message) as raised:
            look(CorpusParams(sources=(source,)))
        assert "\n" not in str(raised.value)


def test_links_that_lead_round_in_a_circle_are_refused_alone(tmp_path: Path) -> None:
    for name, target in (("self.txt", "self.txt"), ("there.txt", "back.txt"), ("back.txt", "there.txt"), ("folder", "folder")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "good.txt").write_text("good")
    for uri in (str(tmp_path), f"{tmp_path}/*.txt"):
        found = read(uri)
        assert found.texts == ["good"]
        assert found.reasons == {(f"{name}.txt", 0): "unreadable" for name in ("self", "there", "back")}
        assert {refused.detail for refused in found.refused} == {"Too many levels of symbolic links"}
    with pytest.raises(UserError, match=r"self\.txt' does not exist"):
        read(f"{tmp_path}/self.txt")
