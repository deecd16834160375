"""The event of a new release: its name, resource and payload, sent once for every version that becomes current."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_schemas.storage import Artifact, Storage

RELEASED = "ropeway.release.published"


def release_event(name: str, artifact: Artifact) -> dict[str, Any]:
    """The arguments of Prefect's `emit_event`. The payload has `name`, `digest` and `location`; the resource has them as labels."""
    payload = {"name": name, "digest": artifact.digest, "location": artifact.location}
    labels = {f"ropeway.release.{label}": value for label, value in payload.items()}
    resource = {"prefect.resource.id": f"ropeway.release.{name}", "prefect.resource.name": name}
    return {"event": RELEASED, "resource": resource | labels, "payload": payload}


def is_announced(storage: Storage, name: str, digest: str) -> bool:
    """Whether the last event of `name` was about this version."""
    from data_schemas.releases import announced_key, parse_pointer
    from tasks.publish.destinations.history import storage_place

    return parse_pointer(storage_place(storage).read(announced_key(name))) == digest


def announce(storage: Storage, name: str, artifact: Artifact, emit: Callable[..., Any]) -> None:
    """Emit the event, unless `name` serves another version or the last event was about this one.

    The digest of the last event is in the file `announced`, which is written after the event. So if a run ends between the release
    and its event, because a destination failed or it was killed, the next run sends the event.
    """
    from data_schemas.releases import announced_key, parse_pointer
    from tasks.publish.destinations.history import storage_place
    from tasks.publish.releases import current_digest

    place, told = storage_place(storage), announced_key(name)
    seen = place.read(told)
    if current_digest(storage, name) != artifact.digest or parse_pointer(seen) == artifact.digest:
        return
    emit(**release_event(name, artifact))
    place.swap(told, f"{artifact.digest}\n".encode(), seen)
