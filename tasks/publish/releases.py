"""Read and set the current version of a release in a storage. `data_schemas.releases` has the layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_schemas.releases import current_key, parse_pointer
from data_schemas.storage import Storage

if TYPE_CHECKING:
    from tasks.publish.destinations.pointer import Pointed


def current_digest(storage: Storage, name: str) -> str | None:
    """The digest in `current`. None if nothing was published under `name`, or `current` is broken, which publishing repairs."""
    from tasks.publish.destinations.history import storage_place

    return parse_pointer(storage_place(storage).read(current_key(name)))


def point_current(storage: Storage, name: str, digest: str) -> Pointed:
    """Make a version that is there the current one, unless a rollback took it from service."""
    from tasks.publish.destinations.history import storage_place
    from tasks.publish.destinations.pointer import serve_published

    return serve_published(storage_place(storage), name, digest)


def keep_back(storage: Storage, name: str, digest: str) -> Pointed:
    """Mark a version that is there as not to be served. One that is served already stays so."""
    from tasks.publish.destinations.history import storage_place
    from tasks.publish.destinations.pointer import hold_back

    return hold_back(storage_place(storage), name, digest)
