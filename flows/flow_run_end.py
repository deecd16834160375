"""The state of this process' flow run on the Prefect server when the run is interrupted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

_STARTED: list[UUID] = []
_FINAL = ("COMPLETED", "FAILED", "CANCELLED")


def note_started(flow_run_id: Any) -> None:
    """Remember the flow run of this process."""
    if flow_run_id is not None:
        _STARTED.append(UUID(str(flow_run_id)))


def ensure_cancelled(message: str) -> None:
    """Set the flow run to Cancelled if it has not ended. Prefect calls what an exception of the system ends a crash."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    with get_client(sync_client=True) as client:
        for flow_run_id in _STARTED:
            state = client.read_flow_run(flow_run_id).state
            if state is None or state.type.value not in _FINAL:
                client.set_flow_run_state(flow_run_id, Cancelled(message=message), force=True)
