"""The manifest of an artifact: the parameters, parents and files it was made from and consists of.

The digest is a function of stage, parameters, code version and parents alone, so it is known before the work is done
and a second run with nothing changed finds the artifact instead of making it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1


class FileEntry(BaseModel):
    """One file of an artifact: its POSIX path below the artifact, its size and its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    num_bytes: int
    sha256: str


class Manifest(BaseModel):
    """Written last and atomically. A folder without a valid manifest is debris of a crash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    stage: str
    params: dict[str, Any]
    code_version: int
    parents: dict[str, str]
    digest: str
    summary: dict[str, Any]
    files: tuple[FileEntry, ...]


def stage_digest(stage: str, params: dict[str, Any], code_version: int, parents: dict[str, str]) -> str:
    """First 32 hex digits of the SHA-256 of the arguments as canonical JSON."""
    payload = {"stage": stage, "params": params, "code_version": code_version, "parents": parents}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entries(directory: Path) -> tuple[FileEntry, ...]:
    """Every file below `directory` except the manifest, in the order of their paths."""
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p != directory / MANIFEST_NAME)
    return tuple(
        FileEntry(path=p.relative_to(directory).as_posix(), num_bytes=p.stat().st_size, sha256=hash_file(p)) for p in paths
    )


def file_sizes(directory: Path, entries: Iterable[FileEntry]) -> dict[str, int]:
    """Bytes of those recorded files that are there, by path."""
    files = ((entry.path, directory / entry.path) for entry in entries)
    return {name: file.stat().st_size for name, file in files if file.is_file()}


def file_differences(
    entries: Iterable[FileEntry],
    sizes: Mapping[str, int],
    sha256: Callable[[str], str],
    *,
    besides: Iterable[str] | None = None,
) -> list[str]:
    """One phrase for each file that is not as recorded. This is the only comparison of files with their digests.

    `sizes` holds the bytes of each file that is there; `sha256` hashes one of them, and is called if its size agrees. With
    `besides`, a file is extra that is neither recorded nor named there; with None, such files are ignored.
    """
    problems, recorded = [], set()
    for entry in entries:
        recorded.add(entry.path)
        if entry.path not in sizes:
            problems.append(f"{entry.path} is missing")
        elif sizes[entry.path] != entry.num_bytes:
            problems.append(f"{entry.path} has {sizes[entry.path]} bytes instead of {entry.num_bytes}")
        elif sha256(entry.path) != entry.sha256:
            problems.append(f"{entry.path} has other content than recorded")
    extra = sizes.keys() - recorded - set(besides) if besides is not None else set()
    return problems + [f"{path} is extra" for path in sorted(extra)]


def damaged_files(directory: Path, manifest: Manifest) -> list[str]:
    """One phrase for each file below `directory` that is not as the manifest records it."""
    return file_differences(manifest.files, file_sizes(directory, manifest.files), lambda path: hash_file(directory / path))
