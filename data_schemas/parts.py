"""What workers leave for each other: whole files below one place that all of them see.

The place is a folder (of this machine or of a shared file system) or a prefix of remote storage. A file appears under
its name only when it is complete, so one that is there was finished, also after a kill.
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
    """Files below `place`, a local folder or a remote URI. Small, and sent to workers as it is."""

    place: str

    def has(self, name: str) -> bool:
        return self._remote.exists(name) if is_remote(self.place) else (Path(self.place) / name).is_file()

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write to; on success the file stands under `name`, on an error nothing does."""
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
        """A local path of the file, fetched for the duration where the place is remote."""
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
        """A local path of the file; a remote one is fetched once and kept as long as this process lives."""
        if not is_remote(self.place):
            return Path(self.place) / name
        local = self._local_folder / name
        if not local.exists():
            self._remote.download(name, local)
        return local

    def take(self, name: str, destination: Path) -> None:
        """Put the file at `destination` as well; on one file system that copies nothing."""
        if is_remote(self.place):
            self._remote.download(name, destination)
            return
        try:
            os.link(Path(self.place) / name, destination)
        except OSError:
            shutil.copyfile(Path(self.place) / name, destination)

    @property
    def _local_folder(self) -> Path:
        """Where files are on this machine; each remote place has its own, for names repeat between places."""
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
