"""One version of a release: on this machine, to be copied, or as it lies at a place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, FileEntry, Manifest, file_differences
from data_schemas.releases import version_key
from tasks.publish.checksums import CHECKSUMS, SIGNATURE


@dataclass(frozen=True)
class Version:
    """A finished release on this machine. `manifest_bytes` is the content of its manifest.json."""

    name: str
    folder: Path
    manifest: Manifest
    manifest_bytes: bytes

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """Size and hash of every file, the manifest among them."""
        sha256 = hashlib.sha256(self.manifest_bytes).hexdigest()
        manifest = FileEntry(path=MANIFEST_NAME, num_bytes=len(self.manifest_bytes), sha256=sha256)
        return (*self.manifest.files, manifest)

    @property
    def key(self) -> str:
        """Its folder, relative to a place."""
        return version_key(self.name, self.digest)


class Place(Protocol):
    """A folder or URI that holds releases. Paths are relative to it, with slashes. Methods raise UserError."""

    @property
    def uri(self) -> str: ...

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of each file below `folder`, by its path relative to that."""

    def read(self, path: str) -> bytes | None: ...

    def sha256(self, path: str) -> str: ...

    def written_at(self, path: str) -> datetime | None: ...

    def put(self, version: Version) -> bool:
        """Copy a version there and check it; False if it was there already. `current` does not change."""

    def swap(self, path: str, content: bytes, seen: bytes | None) -> bool:
        """Replace a small file that holds `seen` (None: there is no file); False if another writer changed it first."""


def read_version(name: str, folder: Path) -> Version:
    """The finished release in `folder`; UserError if its manifest cannot be read."""
    raw = _read(folder / MANIFEST_NAME)
    manifest = parse_manifest(raw)
    if manifest is None or raw is None:
        raise UserError(f"{folder} is not a finished release, because its {MANIFEST_NAME} cannot be read: publish it again.")
    return Version(name, folder, manifest, raw)


def parse_manifest(raw: bytes | None) -> Manifest | None:
    """The manifest; None if there is none, or the content is not a manifest."""
    try:
        return Manifest.model_validate_json(raw) if raw is not None else None
    except ValidationError:
        return None


def problems_at(place: Place, name: str, digest: str) -> list[str]:
    """One phrase for each thing that is wrong with a version at a place; its manifest, checksums and every file are read."""
    key = version_key(name, digest)
    sizes = place.sizes(key)
    manifest = parse_manifest(place.read(f"{key}/{MANIFEST_NAME}"))
    if manifest is None:
        return [f"it is incomplete: its {MANIFEST_NAME} cannot be read"]
    hashes = {path: place.sha256(f"{key}/{path}") for path in sorted(sizes) if path != MANIFEST_NAME}
    problems = file_differences(manifest.files, sizes, hashes.__getitem__, besides=(MANIFEST_NAME, SIGNATURE))
    if manifest.digest != digest:
        problems.append(f"its manifest is that of {manifest.digest}")
    listed = place.read(f"{key}/{CHECKSUMS}") or b""
    wanted = "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes) if path not in (CHECKSUMS, SIGNATURE))
    if listed != wanted.encode():
        problems.append(f"{CHECKSUMS} does not list these files")
    return problems


def refuse_other(place: Place, version: Version) -> None:
    """UserError unless the finished version at the place has exactly the files of `version`."""
    there = place.sizes(version.key)
    if problems := file_differences(
        version.entries, there, lambda path: place.sha256(f"{version.key}/{path}"), besides=(SIGNATURE,)
    ):
        raise UserError(
            f"{place.uri}/{version.key} holds other files than this release ({'; '.join(problems[:5])}): a published version is never "
            "overwritten, so find out who wrote it, delete that folder there and publish again."
        )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
