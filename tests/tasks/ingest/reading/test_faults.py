"""A failure of a network, a disk or this machine loses no document: reading goes on, or ends in one sentence."""

import errno
import io
import os
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.params import CorpusParams, CorpusSource
from tasks.ingest.corpus_units import Corpus, plan_corpus, read_unit
from tasks.ingest.reading import faults, files
from tasks.ingest.reading.datasets_hub import _read_shard
from tasks.ingest.reading.faults import SteadyStream, is_bad_input, is_transport_failure, tried
from tasks.ingest.reading.records import Document, Refused
from tests.tasks.ingest.reading_example import read

TEXT = "A line of a document that comes over a network.\n" * 60_000  # 2.9 MB


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WAITS_S", (0, 0, 0))


class FlakyHandler(BaseHTTPRequestHandler):
    """Serves TEXT under any name; how the next answers to a GET fail stands in `plan`: a status, or "cut"."""

    plan: list[int | str]
    num_served: list[int]

    def do_HEAD(self) -> None:
        self._answer(200, len(TEXT), b"")

    def do_GET(self) -> None:
        self.num_served.append(1)
        failure = self.plan.pop(0) if self.plan else None
        if isinstance(failure, int):
            self._answer(failure, 0, b"")
        else:
            self._answer(200, len(TEXT), TEXT.encode()[: len(TEXT) // 2 if failure else None])

    def _answer(self, status: int, num_bytes: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(num_bytes))
        self.send_header("ETag", '"the healthy file"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def flaky(servers: None) -> Iterator[tuple[str, type[FlakyHandler]]]:
    """URI of a file on a web server, and the server's plan."""
    handler = type("Flaky", (FlakyHandler,), {"plan": [], "num_served": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/text.txt?token=hunter2", handler
    server.shutdown()
    server.server_close()


def planned(*sources: Any) -> tuple[CorpusParams, Corpus]:
    params = CorpusParams(sources=sources)
    return params, plan_corpus(params)


def read_all(params: CorpusParams, corpus: Corpus) -> list[Any]:
    return [one for unit in corpus.units for one in read_unit(unit, params)]


@pytest.mark.parametrize("plan", [["cut"], [503], ["cut", 500, "cut"], [429, 408]])
def test_a_web_file_is_read_on_after_failures(flaky: tuple[str, type[FlakyHandler]], plan: list[int | str]) -> None:
    uri, server = flaky
    params, corpus = planned(uri)
    server.plan[:] = plan
    (document,) = read_all(params, corpus)
    assert document.text == TEXT
    assert server.plan == []


@pytest.mark.parametrize("failure", ["cut", 503])
def test_a_failure_that_lasts_stops_the_run_and_refuses_nothing(
    flaky: tuple[str, type[FlakyHandler]], failure: int | str
) -> None:
    uri, server = flaky
    params, corpus = planned(uri)
    server.num_served.clear()
    server.plan[:] = [failure] * 100
    with pytest.raises(
        UserError, match=r"/text\.txt\?token=\.\.\. could not be read in 4 tries .* run again; finished"
    ) as raised:
        read_all(params, corpus)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert 4 <= len(server.num_served) < 20
    server.plan.clear()
    assert [document.text for document in read_all(params, corpus)] == [TEXT]


@pytest.mark.parametrize("status", [403, 404])
def test_a_file_that_the_server_denies_is_refused_at_once(flaky: tuple[str, type[FlakyHandler]], status: int) -> None:
    uri, server = flaky
    params, corpus = planned(uri)
    server.plan[:] = [status] * 100
    (refused,) = read_all(params, corpus)
    assert isinstance(refused, Refused)
    assert refused.reason == "unreadable"
    assert len(server.plan) == 99


def test_too_many_open_files_refuse_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    pq.write_table(pa.table({"text": ["row"]}), tmp_path / "b.parquet")
    with pa.ipc.new_file(tmp_path / "c.arrow", pa.schema([("text", pa.string())])) as writer:
        writer.write_batch(pa.RecordBatch.from_pydict({"text": ["arrow row"]}))
    assert read(str(tmp_path)).texts == ["text", "row", "arrow row"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for name in ("a.txt", "b.parquet", "c.arrow"):
        params, corpus = planned(str(tmp_path / name))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(UserError, match=rf"{name} could not be read in 4 tries \(Too many open files\)"):
                read_all(params, corpus)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class FailingStream(io.BytesIO):
    """A file whose calls fail when `failures` says so."""

    def __init__(self, data: bytes, failures: Iterator[bool]) -> None:
        super().__init__(data)
        self._failures = failures

    def read(self, size: int | None = -1, /) -> bytes:
        if next(self._failures, False):
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if next(self._failures, False):
            raise ConnectionResetError("peer reset")
        return super().seek(offset, whence)


steps = st.one_of(
    st.integers(0, 9).map(lambda size: ("read", size, 0)),
    st.tuples(st.just("seek"), st.integers(0, 30), st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])),
)


@given(st.binary(max_size=40), st.lists(steps, max_size=12), st.lists(st.booleans(), max_size=40), st.booleans())
def test_a_steady_stream_reads_like_the_file(
    data: bytes, wanted: list[tuple[str, int, int]], fails: list[bool], can_seek: bool
) -> None:
    few_in_a_row = iter([fail and place % 8 < 2 for place, fail in enumerate(fails)])
    steady = SteadyStream("x", lambda: FailingStream(data, few_in_a_row), can_seek)
    plain = io.BytesIO(data)
    for action, number, whence in wanted:
        if action == "read":
            assert steady.read(number) == plain.read(number)
        elif can_seek:
            assert steady.seek(number, whence) == plain.seek(number, whence)
        assert steady.tell() == plain.tell()
    assert steady.readall() == plain.read()


def test_row_groups_in_a_bucket_are_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(40)]}), sink, row_group_size=8)
    system = fsspec.filesystem("memory")
    system.pipe("/faults/t.parquet", sink.getvalue().to_pybytes())
    params, corpus = planned("memory://faults")
    before = read_all(params, corpus)
    failures = iter([place % 3 == 1 for place in range(60)])
    monkeypatch.setattr(
        files, "_open_remote", lambda file: cast(BinaryIO, FailingStream(system.cat_file(file.location), failures))
    )
    assert read_all(params, corpus) == before
    assert len(before) == 40
    assert len(list(failures)) < 55
    system.rm("/faults", recursive=True)


def test_a_streamed_data_set_is_read_on_where_it_failed() -> None:
    from datasets import IterableDataset

    failures: list[Exception] = []
    calls: list[int] = []

    def rows() -> Iterator[dict[str, str]]:
        for row in range(9):
            calls.append(row)
            if row in (2, 6) and failures:
                raise failures.pop()
            yield {"text": f"text {row}"}

    data = IterableDataset.from_generator(rows)

    def found() -> list[Document | Refused]:
        return list(_read_shard(data, 0, "hf:me/words?token=hunter2", CorpusSource(uri="hf:me/words")))

    healthy = found()
    calls.clear()
    failures += [TimeoutError("hunter2"), ConnectionResetError("hunter2"), OSError(errno.ENOMEM, "no memory")]
    assert found() == healthy
    assert calls.count(2) > 1
    failures += [ConnectionError("hunter2") for _ in range(9)]
    with pytest.raises(UserError, match=r"token=\.\.\. could not be read in 4 tries \(ConnectionError\)") as raised:
        found()
    assert "hunter2" not in str(raised.value)
    failures[:] = [ValueError("a broken row")]
    assert [getattr(one, "reason", "") for one in found()] == ["", "", "unreadable"]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class WithStatus(Exception):
    def __init__(self, status: int, code: str = "") -> None:
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "of_the_input", "of_the_way"),
    [
        (FileNotFoundError("https://x"), True, False),
        (OSError(errno.EACCES, "x"), True, False),
        (OSError(errno.ELOOP, "x"), True, False),
        (caused(PermissionError("denied"), WithStatus(403, "AccessDenied")), True, False),
        (caused(PermissionError("expired"), WithStatus(400, "ExpiredToken")), False, True),
        (caused(FileNotFoundError("https://x"), ConnectionRefusedError(errno.ECONNREFUSED, "x")), False, True),
        (caused(OSError(errno.EBUSY, "slow down"), WithStatus(503)), False, True),
        *(
            (OSError(number, "x"), False, True)
            for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO)
        ),
        (caused(RuntimeError("generating failed"), TimeoutError()), False, True),
        (ValueError("bad row"), False, False),
        (OSError("Couldn't deserialize thrift"), False, False),
    ],
)
def test_whose_fault_an_error_is(error: Exception, of_the_input: bool, of_the_way: bool) -> None:
    assert (is_bad_input(error), is_transport_failure(error)) == (of_the_input, of_the_way)


def test_what_trying_again_cannot_mend_is_tried_once() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        tried("x", fail)
    assert len(calls) == 1
