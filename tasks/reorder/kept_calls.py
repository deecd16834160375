"""Answers that are kept, so that a killed run asks nothing twice."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Called with a key and a function that makes the value; returns the kept value, or makes and keeps it.
Cache = Callable[[str, Callable[[], str]], str]


def keep_nothing(key: str, make: Callable[[], str]) -> str:
    return make()


@dataclass(frozen=True)
class FolderCache:
    """Keeps each value as a text file in `folder`, written atomically."""

    folder: Path

    def __call__(self, key: str, make: Callable[[], str]) -> str:
        path = self.folder / key
        if path.is_file():
            return path.read_bytes().decode("utf-8")
        value = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = self.folder / f".{key}.{uuid.uuid4().hex}"  # equal pieces are processed at once
        staged.write_bytes(value.encode("utf-8"))
        staged.replace(path)
        return value

    @property
    def num_kept(self) -> int:
        """Number of kept values."""
        return sum(not path.name.startswith(".") for path in self.folder.glob("*"))
