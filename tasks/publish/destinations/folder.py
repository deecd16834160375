"""A folder of this machine, or of a shared file system, that holds releases.

A version is copied to a staging folder beside its final place, synced, read back and renamed, so it is there completely or not
at all. Small files such as `current` are replaced by a rename. A lock keeps a release's folder to one publisher at a time; it is
freed when that process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from data_schemas.errors import UserError, is_disk_full
from data_schemas.manifest import MANIFEST_NAME, damaged_files, hash_file
from data_schemas.modes import follow_umask
from data_schemas.storage import fsync_tree, write_atomically
from tasks.publish.destinations.version import Version, parse_manifest, refuse_other

_STAGING, _LOCK = ".staging", ".lock"


class FolderPlace:
    """`root` is an absolute path; it need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def uri(self) -> str:
        return str(self.root)

    def sizes(self, folder: str = "") -> dict[str, int]:
        with _told(self.root):
            return dict(_sizes(self.root / folder))

    def read(self, path: str) -> bytes | None:
        with _told(self.root):
            try:
                return (self.root / path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def sha256(self, path: str) -> str:
        with _told(self.root):
            return hash_file(self.root / path)

    def written_at(self, path: str) -> datetime | None:
        with _told(self.root):
            return datetime.fromtimestamp((self.root / path).stat().st_mtime, UTC)

    def put(self, version: Version) -> bool:
        with _told(self.root), self._locked(version.name):
            final = self.root / version.key
            if parse_manifest(self.read(f"{version.key}/{MANIFEST_NAME}")) is not None:
                refuse_other(self, version)
                return False
            staging = Path(tempfile.mkdtemp(dir=_made(self.root / version.name / _STAGING)))
            try:
                _copy(version, staging)
                _made(final.parent)
                _replace(staging, final)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            _fsync_folder(final.parent)
            return True

    def swap(self, path: str, content: bytes, seen: bytes | None) -> bool:
        file = self.root / path
        with _told(self.root), self._locked(path.partition("/")[0]):
            if self.read(path) != seen:
                return False
            write_atomically(file, content.decode())
            _fsync_folder(file.parent)
            return True

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Lock a release's folder, and remove what a killed publisher staged there."""
        home = _made(self.root / name)
        with (home / _LOCK).open("w") as lock:
            # A shared file system without locks: renames still keep versions complete, but old staging folders remain.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
                shutil.rmtree(home / _STAGING, ignore_errors=True)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    (home / _STAGING).rmdir()


def _sizes(top: Path) -> Iterator[tuple[str, int]]:
    """All files except those of a publisher at work, which may vanish meanwhile."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for folder, folders, names in os.walk(top, onerror=refuse):
        folders[:] = [name for name in folders if name != _STAGING]
        for path in (Path(folder, name) for name in names if name != _LOCK):
            with contextlib.suppress(FileNotFoundError):
                yield path.relative_to(top).as_posix(), path.stat().st_size


def _copy(version: Version, staging: Path) -> None:
    """Copy all files, the manifest last, sync them to the disk, and read every one back."""
    for entry in version.manifest.files:
        target = staging / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(version.folder / entry.path, target)
    (staging / MANIFEST_NAME).write_bytes(version.manifest_bytes)
    follow_umask(staging)  # mkdtemp makes it private
    fsync_tree(staging)
    if problems := damaged_files(staging, version.manifest):
        raise UserError(
            f"The copy in {staging.parents[1]} differs from the release ({'; '.join(problems[:5])}): check that disk and "
            f"{version.folder} with `ropeway verify`, then publish again."
        )


def _replace(staging: Path, final: Path) -> None:
    """Rename. A folder without a manifest in its place was left by an interrupted copy, and is removed."""
    if final.exists():
        final.rename(staging.parent / f"cut-{final.name}-{os.getpid()}")
    staging.rename(final)
    shutil.rmtree(staging.parent / f"cut-{final.name}-{os.getpid()}", ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _told(root: Path) -> Iterator[None]:
    """Turn an error of the file system into one sentence that names the folder."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"No space left in {root}: free some, then publish again.") from error
        raise UserError(
            f"Cannot use the folder {root} ({error.strerror or error}): give another, or correct its permissions."
        ) from error
