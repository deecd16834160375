"""One run at a time on the GPUs: a global concurrency limit of the Prefect server, held while training and measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from data_schemas.params import RayParams

LIMIT = "ropeway-gpu"
KEEPS_LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem"
LEASE_S = 120.0  # at least 60; a holder that was killed blocks the others for at most so long


@contextmanager
def gpu_turn(ray: RayParams, tell: Callable[[str], None], lease_s: float = LEASE_S) -> Iterator[None]:
    """Wait for this run's turn on the GPUs at `ray.address`, and hold it; nothing without `ray.use_gpu`.

    `tell` hears which limit is waited for, and when the turn has come.

    The limit is made when it is missing, for one run; what stands there is left as it is, so that whoever has more
    machines raises it in the Prefect UI. A server that goes away while the turn is held ends no run.

    The server must keep leases over its own restart, or a turn held meanwhile is never given back: run it with
    `KEEPS_LEASES` in its environment (`forgets_leases` tells).
    """
    if not ray.use_gpu:
        yield
        return
    from prefect.concurrency.sync import concurrency

    name = limit_name(ray)
    ensure_limit(name)
    tell(f"waiting for a turn on the GPUs (the global concurrency limit {name})")
    with concurrency(name, occupy=1, strict=True, lease_duration=lease_s, raise_on_lease_renewal_failure=False):
        tell("it is this run's turn on the GPUs")
        yield


def limit_name(ray: RayParams) -> str:
    """`ropeway-gpu` for the GPUs of the machines that run flows, and a limit of its own for every other cluster, by the name of
    its head: its dashboard and its GCS are one cluster. `auto` is a cluster that only the machine itself knows."""
    if ray.address == "local":
        return LIMIT
    parts = urlsplit(ray.address if "//" in ray.address else f"//{ray.address}")
    cluster = parts.hostname or "unnamed"
    return f"{LIMIT}-" + "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in cluster)


def ensure_limit(name: str = LIMIT) -> None:
    """Make the limit for one run where there is none; never change one that exists."""
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
    """Whether the server would lose, when it is restarted, who holds a limit: it would then end the runs that do."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        settings = client.request("GET", "/admin/settings").json()
    return str(settings["server"]["concurrency"]["lease_storage"]).endswith(".memory")
