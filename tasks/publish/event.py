"""What a release tells: its event's name, resource and payload."""

from __future__ import annotations

from typing import Any

from data_schemas.storage import Artifact

RELEASED = "ropeway.release.published"


def release_event(name: str, artifact: Artifact) -> dict[str, Any]:
    """The arguments of Prefect's `emit_event`: the payload has `name`, `digest` and `location`, the resource the same as labels."""
    payload = {"name": name, "digest": artifact.digest, "location": artifact.location}
    labels = {f"ropeway.release.{label}": value for label, value in payload.items()}
    resource = {"prefect.resource.id": f"ropeway.release.{name}", "prefect.resource.name": name}
    return {"event": RELEASED, "resource": resource | labels, "payload": payload}
