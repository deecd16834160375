"""Storage on S3, over HTTP: the manifest comes last, a mirror is only a mirror, and damage is named."""

import os
import signal
import subprocess
import sys

import pytest

from data_schemas.errors import UserError
from data_schemas.parts import Parts
from data_schemas.remote import Remote
from data_schemas.storage import Storage
from tests.s3_server import s3_server

INPUTS = {"stage": "demo", "params": {"a": 1}, "code_version": 1, "parents": {}}


@pytest.fixture(scope="module")
def bucket(servers):
    with s3_server() as uri:
        yield uri


@pytest.fixture
def root(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    return f"{bucket}/{tmp_path.name}"


def make(directory):
    (directory / "sub").mkdir()
    for number in range(3):
        (directory / "sub" / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    return {"rows": 3}


def build(root, make=make):
    return Storage(root).build("documents", make=make, **INPUTS)


def refuse(directory):
    raise AssertionError("a finished artifact was made again")


def test_another_machine_finds_and_fetches_what_one_made(root, tmp_path, monkeypatch):
    made = build(root)
    assert made.location == f"{root}/documents/{made.digest}"
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "elsewhere"))
    found = build(root, make=refuse)
    assert found.reused
    assert not found.folder.exists()  # nothing is fetched before it is asked for
    assert (found.path / "sub" / "1.bin").read_bytes() == b"\1" * 1000
    found.check()
    assert found.manifest == made.manifest


def test_the_manifest_is_written_last_and_a_cut_upload_goes_on(root):
    code = f"""
import os, signal
from data_schemas.remote import Remote
from data_schemas.storage import Storage
from tests.data_schemas.test_remote_storage import INPUTS, make
sent = []
upload = Remote.upload
def cut(self, local, relative):
    if len(sent) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    sent.append(relative)
    upload(self, local, relative)
Remote.upload = cut
Storage({root!r}).build("documents", make=make, **INPUTS)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=os.getcwd()).returncode == -signal.SIGKILL
    [folder] = {name.split("/")[0] for name in Remote(root).sizes("documents")}
    assert sorted(Remote(root).sizes(f"documents/{folder}")) == ["sub/0.bin", "sub/1.bin"]
    assert Storage(root).find("documents", folder) is None
    uploaded = []
    original = Remote.upload
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Remote, "upload", lambda self, local, relative: (uploaded.append(relative), original(self, local, relative))
        )
        finished = build(root, make=refuse)  # the mirror had it whole
    assert uploaded == [f"documents/{folder}/sub/2.bin"]
    assert finished.digest == folder
    assert "manifest.json" in Remote(root).sizes(f"documents/{folder}")


@pytest.mark.parametrize("damage", ["missing", "shortened", "flipped"])
def test_damage_is_found_by_name(root, tmp_path, monkeypatch, damage):
    digest = build(root).digest
    remote = Remote(root)
    if damage == "missing":
        remote.remove(f"documents/{digest}/sub/1.bin")
    else:
        remote.write(
            f"documents/{digest}/sub/1.bin", b"\1" * (10 if damage == "shortened" else 999) + b"\2" * (damage == "flipped")
        )
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match=r"sub/1\.bin"):
        build(root).check()


def test_what_another_machine_finished_meanwhile_is_taken(root, tmp_path, monkeypatch):
    def make_too_late(directory):
        with pytest.MonkeyPatch.context() as elsewhere:
            elsewhere.setenv("ROPEWAY_CACHE", str(tmp_path / "faster"))
            build(root)
        raise UserError("a part that the other machine has removed is missing")

    assert build(root, make=make_too_late).reused


def test_remote_parts_of_two_places_are_kept_apart(root, tmp_path):
    storage = Storage(root)
    for key in ("a" * 32, "b" * 32):
        with storage.parts(key, on_other_machines=True) as parts:
            with parts.writing("same-name") as path:
                path.write_text(key)
            assert parts.kept("same-name").read_text() == key
    storage.drop_parts("a" * 32)
    assert sorted(Remote(root).sizes(".parts")) == [f"{'b' * 32}/same-name"]
    Remote(root).remove_stale(".parts", older_than_s=1000)
    assert Remote(root).sizes(".parts")
    Remote(root).remove_stale(".parts", older_than_s=-1000)
    assert not Remote(root).sizes(".parts")


def test_runs_are_recorded_remotely(root, tmp_path, monkeypatch):
    Storage(root).record_run("nightly", {"shards": {"digest": "0" * 32}})
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "elsewhere"))
    assert Storage(root).recorded_run("nightly") == {"shards": {"digest": "0" * 32}}
    assert Storage(root).recorded_run("never") == {}


def test_a_bucket_that_does_not_exist_is_a_sentence(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="s3://no-such-bucket/x") as raised:
        build("s3://no-such-bucket/x")
    assert "\n" not in str(raised.value)


def test_secrets_do_not_belong_in_the_address():
    with pytest.raises(UserError, match="environment") as raised:
        Storage("s3://key:hunter2@bucket/x")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_parts_appear_whole_or_not_at_all(root, tmp_path, kind):
    parts = Parts(f"{root}/parts" if kind == "s3" else str(tmp_path / "parts"))

    def write_half_and_fail():
        with parts.writing("a") as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half_and_fail()
    assert not parts.has("a")
    with parts.writing("a") as path:
        path.write_bytes(b"whole")
    assert parts.has("a")
    with parts.reading("a") as path:
        assert path.read_bytes() == b"whole"
    assert parts.kept("a").read_bytes() == b"whole"
    parts.take("a", tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == b"whole"
    assert parts.has("a")
