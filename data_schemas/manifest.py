"""What a stage leaves behind: which parameters, parents and files an artifact consists of.

The digest is a function of stage, parameters, code version and parents alone, so it is known before the work is done
and a second run with nothing changed finds the artifact instead of making it again.
"""

from __future__ import annotations

import hashlib
import json
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
    """Written last and atomically; a directory without a valid one is debris of a crash."""

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
    """First 32 hex digits of the SHA-256 of the canonical JSON of what determines an artifact."""
    payload = {"stage": stage, "params": params, "code_version": code_version, "parents": parents}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entries(directory: Path) -> tuple[FileEntry, ...]:
    """Every file below `directory` but the manifest, in the order of their paths."""
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p != directory / MANIFEST_NAME)
    return tuple(
        FileEntry(path=p.relative_to(directory).as_posix(), num_bytes=p.stat().st_size, sha256=hash_file(p)) for p in paths
    )


def damaged_files(directory: Path, manifest: Manifest) -> list[str]:
    """One sentence for each file that is missing, of another size or of another content than recorded."""
    problems = []
    for entry in manifest.files:
        path = directory / entry.path
        if not path.is_file():
            problems.append(f"{entry.path} is missing")
        elif path.stat().st_size != entry.num_bytes:
            problems.append(f"{entry.path} has {path.stat().st_size} bytes instead of {entry.num_bytes}")
        elif hash_file(path) != entry.sha256:
            problems.append(f"{entry.path} has other content than recorded")
    return problems
