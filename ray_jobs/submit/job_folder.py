"""The folder, below the storage, through which a submitted job and the processes that wait for it exchange files.

<storage>/runs/jobs/<submission id>.<random>/
    params.json         what the job reads
    outcome.json        the artifact that it made, or the error; written by the job, last
    waiting/<id>.json   one for each process that waits for the job, renewed while it lives
    left.json           written by the last process that stops waiting, before it stops the job
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.addresses import is_remote, local_path
from data_schemas.remote import Remote
from data_schemas.storage import Storage, write_atomically

PARAMS, OUTCOME, LEFT, WAITING = "params.json", "outcome.json", "left.json", "waiting"


@dataclass(frozen=True)
class JobFolder:
    """Small JSON files below `place`, a folder or a remote URI. UserError if remote storage does not answer."""

    place: str

    @classmethod
    def of(cls, storage: Storage, name: str) -> JobFolder:
        root = storage.remote.uri if storage.remote else str(storage.root)
        return cls(f"{root}/runs/jobs/{name}")

    def at(self, name: str) -> str:
        return f"{self.place}/{name}"

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace the file atomically: a reader sees either the old content or the new."""
        write_json(self.at(name), content)

    def read(self, name: str) -> dict[str, Any] | None:
        """The content; None if there is no such file or it is not whole."""
        try:
            text = Remote(self.place).read(name) if is_remote(self.place) else (Path(self.place) / name).read_bytes()
            content: dict[str, Any] | None = None if text is None else json.loads(text)
        except (FileNotFoundError, ValueError):
            return None
        return content

    def names(self, folder: str) -> list[str]:
        """The files directly in `folder`."""
        if is_remote(self.place):
            return sorted(Remote(self.place).sizes(folder))
        try:
            return sorted(name for name in os.listdir(Path(self.place) / folder) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def remove(self, name: str = "") -> None:
        """Remove a file, or the whole folder. It may be gone already."""
        if is_remote(self.place):
            place, _, last = self.place.rpartition("/")
            Remote(place).remove(f"{last}/{name}".rstrip("/"))
        elif name:
            (Path(self.place) / name).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.place, ignore_errors=True)


def write_json(location: str, content: Mapping[str, Any]) -> None:
    """Write a JSON file to a path or remote URI, whole or not at all."""
    text = json.dumps(content, indent=1)
    if is_remote(location):
        place, _, name = location.rpartition("/")
        Remote(place).write(name, text.encode())
    else:
        write_atomically(local_path(location), text)
