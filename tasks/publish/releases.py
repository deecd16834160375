"""Read and set the current version of a release in a storage. `data_schemas.releases` has the layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_schemas.errors import UserError
from data_schemas.releases import CURRENT, RELEASES, current_key, parse_pointer, resolve_release, version_kind
from data_schemas.storage import Storage

if TYPE_CHECKING:
    from tasks.publish.destinations.pointer import Pointed


def current_digest(storage: Storage, name: str) -> str | None:
    """The digest in `current`. None if nothing was published under `name`, or `current` is broken, which publishing repairs."""
    from tasks.publish.destinations.history import storage_place

    return parse_pointer(storage_place(storage).read(current_key(name)))


def current_release(storage: Storage, name: str) -> Path | None:
    """The folder of the current version, downloaded from a remote storage; None if nothing was published under `name`.

    Raises UserError if `current` names a version that is not there.
    """
    if storage.remote is None:
        home = storage.root / RELEASES / name
        return resolve_release(home) if (home / CURRENT).is_file() else None
    digest = current_digest(storage, name)
    found = storage.find(version_kind(name), digest) if digest else None
    if digest and found is None:
        raise UserError(
            f"{storage.remote.uri}/{RELEASES}/{current_key(name)} names {digest}, which is not there: publish again."
        )
    return found.path if found else None


def point_current(storage: Storage, name: str, digest: str) -> Pointed:
    """Make a version that is there the current one, unless a rollback took it from service."""
    from tasks.publish.destinations.history import storage_place
    from tasks.publish.destinations.pointer import serve_published

    return serve_published(storage_place(storage), name, digest)
