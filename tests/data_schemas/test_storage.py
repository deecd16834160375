"""Artifacts appear whole or not at all, are found again, and damage is named."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from data_schemas.errors import UserError
from data_schemas.storage import Storage, read_manifest, write_atomically

INPUTS = {"stage": "demo", "params": {"a": 1}, "code_version": 1, "parents": {"p": "0" * 32}}


def make(directory):
    (directory / "sub").mkdir()
    (directory / "sub" / "data.bin").write_bytes(b"x" * 1000)
    return {"rows": 3}


def build(storage, make=make, **changes):
    return storage.build("documents", make=make, **(INPUTS | changes))


def refuse(directory):
    raise AssertionError("a finished artifact was made again")


def test_a_second_build_with_the_same_inputs_finds_the_first(tmp_path):
    first = build(Storage(str(tmp_path)))
    second = build(Storage(str(tmp_path)), make=refuse)
    assert (first.reused, second.reused) == (False, True)
    assert second.manifest == first.manifest
    assert second.manifest.summary == {"rows": 3}


@pytest.mark.parametrize("remote", [False, True])
def test_all_finished_artifacts_of_a_kind_are_listed(tmp_path, monkeypatch, remote):
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    storage = Storage(f"memory://{tmp_path.name}" if remote else str(tmp_path / "storage"))
    made = [build(storage, params={"a": number}).manifest for number in range(3)]
    debris = storage.root / "documents" / ("0" * 32)
    debris.mkdir(parents=True)
    (debris / "manifest.json").write_text("{")
    assert list(storage.manifests("documents")) == sorted(made, key=lambda one: one.digest)
    assert list(storage.manifests("shards")) == []


@pytest.mark.parametrize(
    "change", [{"params": {"a": 2}}, {"code_version": 2}, {"parents": {"p": "1" * 32}}, {"stage": "other"}]
)
def test_every_input_changes_the_digest(tmp_path, change):
    storage = Storage(str(tmp_path))
    assert build(storage).digest != build(storage, **change).digest


def test_an_error_leaves_nothing_and_a_full_disk_is_a_sentence(tmp_path):
    def fails(directory):
        make(directory)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        build(Storage(str(tmp_path)), make=fails)
    assert not (tmp_path / "documents").exists()
    assert not any((tmp_path / ".staging").iterdir())


def test_sigkill_in_the_middle_leaves_debris_that_the_next_run_removes(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from data_schemas.storage import Storage
def make(directory):
    (directory / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
Storage({str(tmp_path)!r}).build("documents", make=make, **{INPUTS!r})
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=os.getcwd()).returncode == -signal.SIGKILL
    assert any((tmp_path / ".staging").iterdir())
    assert not build(Storage(str(tmp_path))).reused
    assert not any((tmp_path / ".staging").iterdir())


def test_a_folder_without_a_valid_manifest_is_debris(tmp_path):
    storage = Storage(str(tmp_path))
    artifact = build(storage)
    (artifact.path / "manifest.json").write_text("{")
    assert not build(storage).reused


@pytest.mark.parametrize("damage", ["missing", "shortened", "flipped"])
def test_damage_is_found_by_name(tmp_path, damage):
    storage = Storage(str(tmp_path))
    file = build(storage).path / "sub" / "data.bin"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"x" * 10 if damage == "shortened" else b"x" * 999 + b"y")
    with pytest.raises(UserError, match=r"sub/data\.bin"):
        build(storage).check()


@pytest.mark.parametrize("kind", ["../outside", "/etc", "documents/../../x", ".hidden", ""])
def test_names_cannot_leave_the_root(tmp_path, kind):
    with pytest.raises(ValueError, match="not an artifact"):
        Storage(str(tmp_path)).directory(kind, "0" * 32)


def test_an_unwritable_root_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="storage"):
        build(Storage(str(tmp_path / "file" / "below")))


def test_atomic_writes_replace_and_leave_no_staged_file(tmp_path):
    for text in ("a", "b"):
        write_atomically(tmp_path / "current", text)
    assert (tmp_path / "current").read_text() == "b"
    assert [p.name for p in tmp_path.iterdir()] == ["current"]
    assert read_manifest(tmp_path) is None


def make_with_parts(storage, calls, fails):
    def make(directory):
        with storage.parts("0" * 32, on_other_machines=False) as parts:
            for number in range(4):
                if not parts.has(f"{number}"):
                    calls.append(number)
                    with parts.writing(f"{number}") as path:
                        path.write_bytes(b"x")
                if number == 2 and fails:
                    raise fails.pop()
            parts.take("3", directory / "taken")
        return {}

    return make


@pytest.mark.parametrize("error", [UserError("a worker was killed"), RuntimeError("boom"), KeyboardInterrupt()])
def test_parts_outlive_a_failure_and_go_when_they_are_dropped(tmp_path, error):
    storage, calls = Storage(str(tmp_path)), []
    make_once = make_with_parts(storage, calls, [error])
    with pytest.raises(type(error)):
        build(storage, make=make_once)
    build(storage, make=make_once)
    assert calls == [0, 1, 2, 3]
    assert list((tmp_path / ".parts").iterdir())
    storage.drop_parts("0" * 32)
    assert not list((tmp_path / ".parts").iterdir())


def test_parts_of_a_finished_artifact_go_unless_another_run_uses_them(tmp_path):
    storage, key = Storage(str(tmp_path)), "0" * 32
    build(storage, make=make_with_parts(storage, [], []))  # killed before it dropped them
    with storage.parts(key, on_other_machines=False):
        storage.drop_parts(key, was_finished=True)
        assert list((tmp_path / ".parts").iterdir())
    storage.drop_parts(key, was_finished=True)
    assert not list((tmp_path / ".parts").iterdir())
    storage.drop_parts(key, was_finished=True)


def test_a_full_disk_gives_the_room_of_the_parts_back(tmp_path):
    storage = Storage(str(tmp_path))
    with pytest.raises(UserError, match="No space left"):
        build(storage, make=make_with_parts(storage, [], [OSError(errno.ENOSPC, "No space left on device")]))
    assert not list((tmp_path / ".parts").iterdir())


def test_stale_parts_are_removed_by_a_later_run(tmp_path):
    storage = Storage(str(tmp_path))
    with pytest.raises(RuntimeError):
        build(storage, make=make_with_parts(storage, [], [RuntimeError()]))
    long_ago = 10 * 86_400
    os.utime(tmp_path / ".parts" / ("0" * 32), (os.stat(tmp_path).st_mtime - long_ago,) * 2)
    with storage.parts("1" * 32, on_other_machines=False):
        assert not (tmp_path / ".parts" / ("0" * 32)).exists()
