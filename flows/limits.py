"""One run at a time on the GPUs, by a global concurrency limit on the Prefect server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from data_schemas.params import RayParams

LIMIT = "ropeway-gpu"
KEEPS_LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem"
LEASE_S = 120.0  # at least 60; a killed holder blocks the others for at most this long


@contextmanager
def gpu_turn(ray: RayParams, tell: Callable[[str], None], lease_s: float = LEASE_S) -> Iterator[None]:
    """Wait for this run's turn on the GPUs at `ray.address`, and hold it. Does nothing without `ray.use_gpu`.

    `tell` gets one line when the wait starts and one when it ends.

    A missing limit is created for one run. An existing one is not changed: raise it in the Prefect UI if you have GPUs for more.
    If the server goes away while the turn is held, the run goes on.

    The server must keep leases over its own restart, or a turn held meanwhile is never given back: run it with
    `KEEPS_LEASES` in its environment (`forgets_leases` checks this).
    """
    if not ray.use_gpu:
        yield
        return
    from prefect.concurrency.sync import concurrency

    name = limit_name(ray)
    ensure_limit(name)
    tell(f"waiting for the GPUs (global concurrency limit {name})")
    with concurrency(name, occupy=1, strict=True, lease_duration=lease_s, raise_on_lease_renewal_failure=False):
        tell("this run has the GPUs now")
        yield


def limit_name(ray: RayParams) -> str:
    """Name of the limit: `ropeway-gpu` for the machine that runs the flow, and one for each other cluster, by its head's host name.

    A cluster's dashboard and GCS have the same host. `auto` becomes `ropeway-gpu-auto`.
    """
    if ray.address == "local":
        return LIMIT
    parts = urlsplit(ray.address if "//" in ray.address else f"//{ray.address}")
    cluster = parts.hostname or "unnamed"
    return f"{LIMIT}-" + "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in cluster)


def ensure_limit(name: str = LIMIT) -> None:
    """Create the limit, for one run at a time, if it is missing. Never changes an existing one."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            except ObjectAlreadyExists:  # another run has just made it
                return


def forgets_leases() -> bool:
    """Whether a restart of the server would lose the leases, and so end the runs that hold a limit."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        settings = client.request("GET", "/admin/settings").json()
    return str(settings["server"]["concurrency"]["lease_storage"]).endswith(".memory")
