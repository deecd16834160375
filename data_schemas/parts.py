"""Parts: files that workers write for each other, in one place that all of them can read.

The place is a folder (of this machine or of a shared file system) or a prefix of remote storage. A file appears under
its name only when it is complete, so a file that exists is finished, even after a kill.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data_schemas.addresses import is_remote
from data_schemas.remote import Remote


@dataclass(frozen=True)
class Parts:
    """Files below `place`, a local folder or a remote URI. Small and picklable, so it can be sent to workers."""

    place: str

    def has(self, name: str) -> bool:
        return self._remote.exists(name) if is_remote(self.place) else (Path(self.place) / name).is_file()

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write to. On success the file appears as `name`; on an error nothing does."""
        folder = self._local_folder
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f".{name}.{os.getpid()}"
        try:
            yield staged
            if is_remote(self.place):
                self._remote.upload(staged, name)
            else:
                os.replace(staged, folder / name)
        finally:
            staged.unlink(missing_ok=True)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """A local path of the file. A remote file is downloaded and removed again at the end."""
        if not is_remote(self.place):
            yield Path(self.place) / name
            return
        local = self._local_folder / f"{os.getpid()}-{name}"
        self._remote.download(name, local)
        try:
            yield local
        finally:
            local.unlink(missing_ok=True)

    def kept(self, name: str) -> Path:
        """A local path of the file. A remote file is downloaded once and kept until this process ends."""
        if not is_remote(self.place):
            return Path(self.place) / name
        local = self._local_folder / name
        if not local.exists():
            self._remote.download(name, local)
        return local

    def take(self, name: str, destination: Path) -> None:
        """Put the file at `destination` too, as a hard link if both are on one file system, else as a copy."""
        if is_remote(self.place):
            self._remote.download(name, destination)
            return
        try:
            os.link(Path(self.place) / name, destination)
        except OSError:
            shutil.copyfile(Path(self.place) / name, destination)

    @property
    def _local_folder(self) -> Path:
        """The folder of this machine with the files. Each remote place has its own, because names repeat between places."""
        if not is_remote(self.place):
            return Path(self.place)
        return Path(_fetched_folder(), hashlib.sha256(self.place.encode()).hexdigest()[:16])

    @property
    def _remote(self) -> Remote:
        return _remote(self.place)


@cache
def _remote(place: str) -> Remote:
    return Remote(place)


@cache
def _fetched_folder() -> str:
    folder = tempfile.mkdtemp(prefix="ropeway-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
