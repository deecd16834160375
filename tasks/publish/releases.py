"""Which version of a release is the current one, and making one it. `data_schemas.releases` says how versions lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_schemas.errors import UserError
from data_schemas.releases import CURRENT, parse_pointer, resolve_release, version_kind
from data_schemas.storage import Storage

if TYPE_CHECKING:
    from tasks.publish.destinations.pointer import Pointed


def current_digest(storage: Storage, name: str) -> str | None:
    """The digest in `current`; None where nothing was published under `name` or the pointer is broken: publishing mends it."""
    from tasks.publish.destinations.history import storage_place

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


def point_current(storage: Storage, name: str, digest: str) -> Pointed:
    """Make a version that is there the current one, unless a rollback left it."""
    from tasks.publish.destinations.history import storage_place
    from tasks.publish.destinations.pointer import serve_published

    return serve_published(storage_place(storage), name, digest)
