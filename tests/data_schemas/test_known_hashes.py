"""A large file is read once, and again after any change."""

import hashlib
import os
from pathlib import Path

import pytest

from data_schemas import known_hashes
from data_schemas.known_hashes import known_hash


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read; every file counts as large, and as old enough."""
    read: list[Path] = []

    def hash_file(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_hashes, "hash_file", hash_file)
    monkeypatch.setattr(known_hashes, "FROM_BYTES", 1)
    monkeypatch.setattr(known_hashes, "_SETTLED_AFTER_NS", -1)
    return read


def test_a_file_is_read_once_and_after_every_change(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    first = known_hash(file)
    assert known_hash(file) == first == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 1
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    before = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == before:  # the file system's clock may tick slowly
        file.write_bytes(b"two")
        os.utime(file, ns=times)  # same size, and the time of the last write set back
    assert known_hash(file) == hashlib.sha256(b"two").hexdigest()
    other = tmp_path / "other"
    other.write_bytes(b"six")
    os.replace(other, file)
    assert known_hash(file) == hashlib.sha256(b"six").hexdigest()


def test_a_file_that_was_just_written_is_not_kept(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hashes, "_SETTLED_AFTER_NS", 10**18)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    assert [known_hash(file), known_hash(file)] == [hashlib.sha256(b"one").hexdigest()] * 2
    assert len(reads) == 2


def test_a_broken_cache_is_not_believed(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    known_hash(file)
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    kept.write_text('{"state": ')
    assert known_hash(file) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 2


def test_small_files_are_read(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hashes, "FROM_BYTES", 4)
    (tmp_path / "config.json").write_bytes(b"one")
    known_hash(tmp_path / "config.json")
    assert not (tmp_path / "cache").exists()
