"""One version of a release: on this machine, ready to be copied, or at a place, as it is found there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, FileEntry, Manifest
from data_schemas.releases import version_key
from tasks.publish.checksums import CHECKSUMS


@dataclass(frozen=True)
class Version:
    """A finished release on this machine. `manifest_bytes` is its manifest.json as it is written."""

    name: str
    folder: Path
    manifest: Manifest
    manifest_bytes: bytes

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def key(self) -> str:
        """Its folder, relative to a place."""
        return version_key(self.name, self.digest)


class Place(Protocol):
    """A folder or a URI that holds releases; paths are relative to it, with slashes. Errors are UserErrors."""

    @property
    def uri(self) -> str: ...

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of each file below `folder`, by its path relative to that."""

    def read(self, path: str) -> bytes | None: ...

    def sha256(self, path: str) -> str: ...

    def written_at(self, path: str) -> datetime | None: ...

    def put(self, version: Version) -> bool:
        """Bring a version there, checked; False where it was there already. `current` is not touched."""

    def swap(self, path: str, content: bytes, seen: bytes | None) -> bool:
        """Replace a small file that holds `seen` (None: it is not there); False where another writer was faster."""


def read_version(name: str, folder: Path) -> Version:
    """The finished release in `folder`; UserError where it has no manifest that can be read."""
    raw = _read(folder / MANIFEST_NAME)
    manifest = parse_manifest(raw)
    if manifest is None or raw is None:
        raise UserError(f"{folder} is not a finished release: it has no {MANIFEST_NAME} that can be read; publish it again.")
    return Version(name, folder, manifest, raw)


def parse_manifest(raw: bytes | None) -> Manifest | None:
    """The manifest, or None where there is none or nothing that is one."""
    try:
        return Manifest.model_validate_json(raw) if raw is not None else None
    except ValidationError:
        return None


def differences(entries: Iterable[FileEntry], sizes: Mapping[str, int], sha256: Callable[[str], str]) -> list[str]:
    """One phrase for each file that is missing or has another size or content than recorded."""
    problems = []
    for entry in entries:
        if entry.path not in sizes:
            problems.append(f"{entry.path} is missing")
        elif sizes[entry.path] != entry.num_bytes:
            problems.append(f"{entry.path} has {sizes[entry.path]} bytes instead of {entry.num_bytes}")
        elif sha256(entry.path) != entry.sha256:
            problems.append(f"{entry.path} has other content than recorded")
    return problems


def problems_at(place: Place, name: str, digest: str) -> list[str]:
    """What is wrong with a version at a place, every file read: its manifest, its checksums, its files; empty if nothing is."""
    key = version_key(name, digest)
    sizes = place.sizes(key)
    manifest = parse_manifest(place.read(f"{key}/{MANIFEST_NAME}"))
    if manifest is None:
        return [f"it is incomplete: there is no {MANIFEST_NAME} that can be read"]
    hashes = {path: place.sha256(f"{key}/{path}") for path in sorted(sizes) if path != MANIFEST_NAME}
    problems = differences(manifest.files, sizes, hashes.__getitem__)
    recorded = {entry.path for entry in manifest.files}
    problems += [f"{path} is extra" for path in sorted(hashes.keys() - recorded)]
    if manifest.digest != digest:
        problems.append(f"its manifest is of {manifest.digest}")
    listed = place.read(f"{key}/{CHECKSUMS}") or b""
    wanted = "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes) if path != CHECKSUMS)
    if listed != wanted.encode():
        problems.append(f"{CHECKSUMS} is not of these files")
    return problems


def refuse_other(place: Place, version: Version) -> None:
    """UserError unless the finished version at the place is, file by file, the one that is to be published."""
    there = place.sizes(version.key)
    problems = differences(version.manifest.files, there, lambda path: place.sha256(f"{version.key}/{path}"))
    recorded = {entry.path for entry in version.manifest.files} | {MANIFEST_NAME}
    problems += [f"{path} is extra" for path in sorted(there.keys() - recorded)]
    if place.read(f"{version.key}/{MANIFEST_NAME}") != version.manifest_bytes:
        problems.append(f"{MANIFEST_NAME} is another")
    if problems:
        raise UserError(
            f"{place.uri}/{version.key} holds other files than this release ({'; '.join(problems[:5])}): a published version is never "
            "overwritten, so look at who wrote it, delete that folder there and publish again."
        )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
