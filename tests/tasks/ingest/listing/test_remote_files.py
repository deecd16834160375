"""Buckets, web servers and zip files, each a real one: S3 over HTTP on this machine, Python's own web server, made archives."""

import functools
import gzip
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas.addresses import without_secrets
from data_schemas.errors import UserError
from data_schemas.params import CorpusParams, CorpusSource
from tasks.ingest import corpus_units as units
from tasks.ingest.corpus_units import plan_corpus, refuse_missing
from tasks.ingest.decontamination.evaluated_prompts import read_prompts
from tests.s3_server import s3_server
from tests.tasks.ingest.reading_example import read

LINES = [json.dumps({"text": f"line {i}"}) for i in range(40)]


def fill(folder: Path) -> Path:
    """A corpus of every kind of file."""
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a text")
    (folder / "deep" / "b.md").write_text("# A heading")
    (folder / "deep" / "c.txt.gz").write_bytes(gzip.compress(b"compressed text"))
    (folder / "lines.jsonl").write_text("\n".join(LINES))
    (folder / "page.html").write_text("<html><body><p>" + "A paragraph about ropes. " * 9 + "</p></body></html>")
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(20)]}), folder / "t.parquet", row_group_size=5)
    with pa.ipc.new_file(folder / "u.arrow", pa.schema([("text", pa.string())])) as writer:
        writer.write_batch(pa.RecordBatch.from_pydict({"text": ["arrow row"]}))
    (folder / "other.bin").write_bytes(b"\0")
    return folder


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("remote") / "corpus")


@pytest.fixture(scope="module")
def bucket(servers: None, local: Path) -> Iterator[str]:
    """URI of a copy of the corpus in a bucket."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with s3_server() as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3fs.S3FileSystem().put(f"{local}/", f"{root}/corpus/", recursive=True)
        yield f"{root}/corpus"
    s3fs.S3FileSystem.clear_instance_cache()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def serve(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def web(servers: None, local: Path) -> Iterator[str]:
    yield from serve(local)


@pytest.fixture(scope="module")
def archive(local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "corpus.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in sorted(p for p in local.rglob("*") if p.is_file()):
            file.write(member, f"corpus/{member.relative_to(local)}")
    return path


@pytest.fixture
def memory(local: Path) -> Iterator[str]:
    import fsspec

    system = fsspec.filesystem("memory")
    for member in (p for p in local.rglob("*") if p.is_file()):
        system.pipe(f"/corpus/{member.relative_to(local)}", member.read_bytes())
    yield "memory://corpus"
    system.rm("/corpus", recursive=True)


def same_but_for_place(uri: str, local: Path) -> None:
    """The source gives what the local folder gives, under its own URIs."""
    here, there = read({"uri": str(local), "name": "s"}), read({"uri": uri, "name": "s"})
    assert there.refused == []
    wanted = [(d.text, d.record, d.byte_start, d.work, d.format) for d in here.documents]
    assert [(d.text, d.record, d.byte_start, d.work, d.format) for d in there.documents] == wanted
    assert len(wanted) == 65


def test_a_bucket_reads_like_a_folder(bucket: str, local: Path) -> None:
    same_but_for_place(bucket, local)
    assert read(f"{bucket}/deep/b.md").texts == ["# A heading"]
    assert read(f"{bucket}/*/*.txt").texts == ["compressed text"]
    found = read({"uri": bucket, "exclude": ("**/*.*l*", "*.arrow", "*.parquet")})
    assert [d.source_uri for d in found.documents] == [f"{bucket}/a.txt", f"{bucket}/deep/b.md", f"{bucket}/deep/c.txt.gz"]


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("remote", ["bucket", "memory"])
def test_remote_files_are_cut_like_local_ones(
    remote: str, local: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = request.getfixturevalue(remote)
    source = {"uri": uri, "include": ("*.jsonl", "*.parquet")}
    whole = read(source)
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 100)
    cut = read(source)
    assert cut.documents == whole.documents
    assert len(cut.corpus.units) > len(whole.corpus.units) + 5


def test_the_fingerprint_follows_what_the_bucket_vouches_for(bucket: str, local: Path) -> None:
    import s3fs

    system = s3fs.S3FileSystem()
    params = CorpusParams(sources=({"uri": bucket, "name": "s"},))
    before = plan_corpus(params).fingerprint
    assert plan_corpus(params).fingerprint == before
    system.pipe("ropeway/corpus/a.txt", b"another")
    changed = plan_corpus(params)
    assert changed.fingerprint != before
    system.put(str(local / "a.txt"), "ropeway/corpus/a.txt")
    assert plan_corpus(params).fingerprint == before
    system.pipe("ropeway/corpus/storage/x.txt", b"of the storage")
    assert plan_corpus(params, leave_out=f"{bucket}/storage").fingerprint == before
    assert plan_corpus(params).fingerprint != before
    system.rm("ropeway/corpus/storage/x.txt")


@pytest.mark.parametrize("storage", ["corpus", ""])
def test_a_bucket_in_the_storage_root_is_refused_at_once(bucket: str, storage: str) -> None:
    params = CorpusParams(sources=({"uri": bucket, "name": "s"},))
    with pytest.raises(UserError, match="lies in the storage root"):
        plan_corpus(params, leave_out=f"s3://ropeway/{storage}")
    plan_corpus(params, leave_out="s3://ropeway/corp")


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("remote", ["bucket", "memory", "archive"])
def test_files_that_no_pattern_is_about_are_counted_anywhere(remote: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(remote)
    uri = f"zip://corpus::{place}" if remote == "archive" else str(place)
    assert read(uri).corpus.num_unmatched == 1
    assert read({"uri": uri, "exclude": ("*.bin",)}).corpus.num_unmatched == 0
    assert read({"uri": uri, "include": ("**/*.bin", "**/*.md")}).corpus.num_unmatched == 6


def test_an_object_that_vanishes_is_refused(bucket: str) -> None:
    import s3fs

    system = s3fs.S3FileSystem()
    system.pipe("ropeway/gone/x.txt", b"text")
    params = CorpusParams(sources=("s3://ropeway/gone",))
    corpus = plan_corpus(params)
    system.rm("ropeway/gone/x.txt")
    (found,) = [one for unit in corpus.units for one in units.read_unit(unit, params)]
    assert (found.source_uri, getattr(found, "reason", "")) == ("s3://ropeway/gone/x.txt", "unreadable")


def test_a_web_server_that_lists_files_reads_like_a_folder(web: str, local: Path) -> None:
    same_but_for_place(f"{web}/", local)
    found = read(f"{web}/lines.jsonl?version=2&token=abc123secret")
    assert len(found.documents) == 40
    assert found.documents[0].source_uri == f"{web}/lines.jsonl?version=2&token=..."
    assert read(f"{web}/*.txt").texts == ["a text"]


@pytest.mark.usefixtures("servers")
def test_a_web_file_above_one_block_is_read_from_a_server_without_ranges(tmp_path: Path) -> None:
    text = "A long page of text.\n" * 600_000  # 12 MB
    (tmp_path / "long.txt").write_text(text)
    for uri in serve(tmp_path):
        assert read(f"{uri}/long.txt").texts == [text]


def test_a_zip_file_reads_like_a_folder(archive: Path, local: Path) -> None:
    same_but_for_place(f"zip://corpus::{archive}", local)
    assert len(read(f"zip://**/*.jsonl::{archive}").documents) == 40
    (document,) = read(f"zip://corpus/deep/b.md::{archive}").documents
    assert (document.text, document.source_uri, document.work) == ("# A heading", f"zip://corpus/deep/b.md::{archive}", "b")
    assert len(read(f"zip://::{archive}").documents) == 65


def test_a_zip_file_in_a_bucket_and_on_the_web(archive: Path, bucket: str) -> None:
    import s3fs

    s3fs.S3FileSystem().put(str(archive), "ropeway/c.zip")
    assert read("zip://corpus/*.txt::s3://ropeway/c.zip").texts == ["a text"]
    for uri in serve(archive.parent):
        assert read(f"zip://corpus/*.txt::{uri}/corpus.zip").texts == ["a text"]


def test_a_repository_in_a_zip_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as file:
        for name in ("tool/main.py", "tool/.git/HEAD", "tool/README.md", "tool/.gitignore", "tool/x.log"):
            file.writestr(name, "*.log\n" if name.endswith("ignore") else f"{name}\n")
    (document,) = read({"uri": f"zip://tool::{tmp_path}/r.zip", "repository": "whole", "name": "tool"}).documents
    assert document.text == "==> README.md <==\ntool/README.md\n\n==> main.py <==\ntool/main.py\n"


def test_hostile_zip_files(tmp_path: Path) -> None:
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../escape.txt", "x")
        file.writestr("/absolute.txt", "x")
        file.writestr("a/../../b.txt", "x")
        file.writestr("a/..\\c.txt", "x")
        file.writestr("bomb.txt", bytes(20_000_000))
        file.writestr("broken.txt", "to be damaged " * 9, zipfile.ZIP_STORED)
        file.writestr("nested.txt.gz", gzip.compress(bytes(20_000_000)))
        file.writestr("good.txt", "good")
    path.write_bytes(path.read_bytes().replace(b"to be damaged to", b"to be DAMAGED to"))
    found = read(f"zip://**::{path}")
    assert {(r.source_uri.removesuffix(f"::{path}"), r.reason) for r in found.refused} == {
        ("zip://../escape.txt", "outside_root"),
        ("zip:///absolute.txt", "outside_root"),
        ("zip://a/../../b.txt", "outside_root"),
        ("zip://a/..\\c.txt", "outside_root"),
        ("zip://bomb.txt", "decompression_bomb"),
        ("zip://nested.txt.gz", "decompression_bomb"),
        ("zip://broken.txt", "corrupt"),
    }
    assert found.texts == ["good"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://ropeway/nowhere", "does not exist"),
        ("s3://no-such-bucket/x", "does not exist"),
        ("zip://nowhere.txt::{archive}", "does not exist"),
        ("zip://x::/nowhere.zip", "does not exist"),
        ("{web}/nowhere.txt", "does not exist"),
        ("http://user:pw@127.0.0.1:1/x.txt?sig=pw", "cannot be listed"),
        ("nonsense://x", "unknown scheme"),
        ("abfs://container/x", r"run `pip install 'fsspec\[abfs\]'`"),
        ("gs://bucket/x", "run `pip install 'gcsfs'`"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(uri: str, message: str, bucket: str, archive: Path, web: str) -> None:
    params = CorpusParams(sources=({"uri": uri.format(archive=archive, web=web), "name": "s"},))
    with pytest.raises(UserError, match=message) as raised:
        plan_corpus(params)
    assert "\n" not in str(raised.value)
    assert "pw" not in str(raised.value)
    if "nowhere.txt::" not in uri:  # what is in an archive is only seen when it is listed
        with pytest.raises(UserError, match=message):
            refuse_missing(params)


def test_missing_credentials_are_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"needs credentials.*AWS_ACCESS_KEY_ID"):
        plan_corpus(CorpusParams(sources=(bucket,)))
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:pw@host/a?b=1", "https://host/a?b=1"),
        ("s3://key:secret@bucket/x", "s3://bucket/x"),
        ("sftp://me:p@w@host/x", "sftp://host/x"),
        ("https://h/a?X-Amz-Signature=pw&v=2&sig=pw", "https://h/a?X-Amz-Signature=...&v=2&sig=..."),
        ("zip://a.txt::https://me@h/z.zip?token=pw", "zip://a.txt::https://h/z.zip?token=..."),
        ("/home/me/a@b.txt", "/home/me/a@b.txt"),
    ],
)
def test_secrets_are_not_shown(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown


@pytest.mark.parametrize(
    ("uri", "label"),
    [
        ("https://bob:hunter2@host/", "host"),
        ("sftp://bob:hunter2@host/*.txt", "host"),
        ("zip://*.txt::https://bob:hunter2@host/a.zip", "source"),
        ("https://host/?token=hunter2", "host"),
        ("https://host/data.jsonl?sig=hunter2/x@y", "data.jsonl"),
        ("s3://bucket/corpus/", "corpus"),
    ],
)
def test_a_sources_label_holds_no_secret(uri: str, label: str) -> None:
    assert CorpusSource(uri=uri).label == label


@pytest.mark.parametrize(
    "name", ["http://me:hunter2@127.0.0.1:1/p.txt?token=hunter2", "nonsense://me:hunter2@x", "memory://x?sig=hunter2"]
)
def test_prompts_that_cannot_be_read_are_named_without_secrets(name: str) -> None:
    with pytest.raises(UserError, match=r"evaluation prompts '(http|nonsense|memory)://") as raised:
        read_prompts([name])
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__
