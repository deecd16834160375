"""The layout of published releases: below `releases/` in a storage, and at every destination.

<name>/versions/<digest>/   one version; it never changes
<name>/current              the digest of the version that is served
<name>/rolled_back          digests that a rollback took from service, one a line: publishing them again does not serve them
<name>/held_back            digests that publishing kept but did not serve, one a line
<name>/announced            the digest of the last release event

The small files are replaced atomically. All paths here are relative, with slashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from data_schemas.errors import UserError

RELEASES = "releases"
CURRENT = "current"
_VERSIONS = "versions"
_ROLLED_BACK = "rolled_back"
_HELD_BACK = "held_back"
_ANNOUNCED = "announced"
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


def is_digest(text: str) -> bool:
    """Whether `text` can be the digest of a version."""
    return _DIGEST.fullmatch(text) is not None


def version_key(name: str, digest: str) -> str:
    """The folder of a version, relative to the folder of all releases."""
    return f"{name}/{version_below(digest)}"


def version_below(digest: str) -> str:
    """The folder of a version, relative to that of its release."""
    return f"{_VERSIONS}/{digest}"


def version_kind(name: str) -> str:
    """The storage kind of the versions of release `name`."""
    return f"{RELEASES}/{name}/{_VERSIONS}"


def current_key(name: str) -> str:
    """The file that holds the digest of the served version."""
    return f"{name}/{CURRENT}"


def rolled_back_key(name: str) -> str:
    """The file that holds the digests that rollbacks took from service."""
    return f"{name}/{_ROLLED_BACK}"


def held_back_key(name: str) -> str:
    """The file that holds the digests that publishing kept but did not serve."""
    return f"{name}/{_HELD_BACK}"


def announced_key(name: str) -> str:
    """The file that holds the digest of the last release event."""
    return f"{name}/{_ANNOUNCED}"


def parse_version_path(path: str) -> tuple[str, str, str] | None:
    """(name, digest, path in the version) of a version's file; None for any other path."""
    name, _, rest = path.partition("/")
    folder, _, rest = rest.partition("/")
    digest, _, file = rest.partition("/")
    return (name, digest, file) if folder == _VERSIONS and file and is_digest(digest) else None


def holds_releases(paths: Iterable[str]) -> bool:
    """Whether a folder with files at `paths` is that of all releases, and not one release, which may be named `releases`."""
    parts = [path.split("/") for path in paths]
    return any(part[1:2] == [_VERSIONS] for part in parts) and not any(part[0] == _VERSIONS for part in parts)


def is_version_folder(directory: Path) -> bool:
    """Whether `directory` lies where a version does, so that its name is a digest."""
    return directory.parent.name == _VERSIONS


def parse_pointer(raw: bytes | None) -> str | None:
    """The digest in a pointer file. None if there is no file, or its content is not a digest."""
    text = (raw or b"").decode("utf-8", errors="replace").strip()
    return text if is_digest(text) else None


def resolve_release(directory: Path) -> Path:
    """The version that `current` in `directory` names; `directory` itself if it has no `current`.

    Raises UserError if `current` names a version that is not there, or if `directory` has versions but serves none.
    """
    pointer = directory / CURRENT
    if not pointer.is_file():
        if kept := sorted(path.name for path in directory.glob(f"{_VERSIONS}/*") if is_digest(path.name)):
            raise UserError(f"No version in {directory} is served: name one, such as {directory / version_below(kept[0])}.")
        return directory
    raw = pointer.read_bytes()
    digest = parse_pointer(raw)
    version = directory / version_below(digest) if digest else None
    if version is None or not version.is_dir():
        named = raw.decode("utf-8", errors="replace").strip()[:80]
        raise UserError(f"{pointer} names {named!r}, which is not a version in {directory}: publish again to correct it.")
    return version
