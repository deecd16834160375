"""Which version of a release is the current one.

releases/<name>/versions/<digest>/   immutable
releases/<name>/current              a text file with the digest, replaced atomically
releases/<name>/rolled_back          digests that `ropeway rollback` left, one a line; publishing them again does not serve them
releases/<name>/announced            the digest whose release event was sent last

The same below a remote storage root, and at every destination: tasks/publish/destinations lists versions and goes back to one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from data_schemas.errors import UserError
from data_schemas.storage import Storage

if TYPE_CHECKING:
    from tasks.publish.destinations.pointer import Pointed

CURRENT = "current"


def version_kind(name: str) -> str:
    """The storage kind of the versions of release `name`."""
    return f"releases/{name}/versions"


def current_digest(storage: Storage, name: str) -> str | None:
    """The digest in `current`; None where nothing was published under `name` or the pointer is broken: publishing mends it."""
    from tasks.publish.destinations.history import storage_place
    from tasks.publish.destinations.version import parse_pointer

    return parse_pointer(storage_place(storage).read(f"{name}/{CURRENT}"))


def current_release(storage: Storage, name: str) -> Path | None:
    """The folder of the current version, fetched where the storage is remote; None where nothing was published under `name`.

    Raises UserError where `current` names no published version.
    """
    if storage.remote is None:
        home = storage.root / "releases" / name
        return resolve_release(home) if (home / CURRENT).is_file() else None
    digest = current_digest(storage, name)
    found = storage.find(version_kind(name), digest) if digest else None
    if digest and found is None:
        raise UserError(f"{storage.remote.uri}/releases/{name}/{CURRENT} names {digest}, which is not there: publish again.")
    return found.path if found else None


def resolve_release(directory: Path) -> Path:
    """Follow `current` if `directory` has one, else `directory` itself.

    Raises UserError where `current` names no published version.
    """
    pointer = directory / CURRENT
    if not pointer.is_file():
        return directory
    digest = pointer.read_text(encoding="utf-8", errors="replace").strip()
    version = directory / "versions" / digest
    if not re.fullmatch(r"[0-9a-f]{8,64}", digest) or not version.is_dir():
        raise UserError(f"{pointer} names {digest[:80]!r}, which is no version below {directory}: publish again to mend it.")
    return version


def point_current(storage: Storage, name: str, digest: str) -> Pointed:
    """Make a version that is there the current one, unless a rollback left it."""
    from tasks.publish.destinations.history import storage_place
    from tasks.publish.destinations.pointer import serve_published

    return serve_published(storage_place(storage), name, digest)
