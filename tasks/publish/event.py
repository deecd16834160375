"""What a release tells: its event's name, resource and payload, once for every version that comes to be served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_schemas.storage import Artifact, Storage

RELEASED = "ropeway.release.published"
ANNOUNCED = "announced"


def release_event(name: str, artifact: Artifact) -> dict[str, Any]:
    """The arguments of Prefect's `emit_event`: the payload has `name`, `digest` and `location`, the resource the same as labels."""
    payload = {"name": name, "digest": artifact.digest, "location": artifact.location}
    labels = {f"ropeway.release.{label}": value for label, value in payload.items()}
    resource = {"prefect.resource.id": f"ropeway.release.{name}", "prefect.resource.name": name}
    return {"event": RELEASED, "resource": resource | labels, "payload": payload}


def announce(storage: Storage, name: str, artifact: Artifact, emit: Callable[..., Any]) -> None:
    """Emit the event, unless `name` serves another version or this one is what was told last.

    What was told stands in releases/<name>/announced, written behind the event: a run that ended between the release and its
    event, by a destination that failed or a kill, leaves that to the next one.
    """
    from data_schemas.releases import parse_pointer
    from tasks.publish.destinations.history import storage_place
    from tasks.publish.releases import current_digest

    place, told = storage_place(storage), f"{name}/{ANNOUNCED}"
    seen = place.read(told)
    if current_digest(storage, name) != artifact.digest or parse_pointer(seen) == artifact.digest:
        return
    emit(**release_event(name, artifact))
    place.swap(told, f"{artifact.digest}\n".encode(), seen)
