"""A Ray cluster to run on: the one at an address, or a private one in this process."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator

from data_schemas.errors import UserError
from data_schemas.params import RayParams


@contextlib.contextmanager
def connected(params: RayParams) -> Iterator[None]:
    """Connect to Ray for the duration, quietly. An already connected process is left as it is.

    `local` starts a private cluster with as many CPUs as the workers ask for, at least those of the machine, and stops it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2", "1")
    if params.address == "local":
        # A private cluster on loopback needs no token, and must not write one into the home directory.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    if ray.is_initialized():
        yield
        return
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        if params.address == "local":
            needed = int(params.num_workers * params.cpus_per_worker + 0.999)
            ray.init(
                address="local",
                num_cpus=max(needed, os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=params.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"Cannot reach a Ray cluster at ray.address {params.address!r}: {detail}") from error
    if callable(on_termination) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_termination)  # Ray has put an exit in its place, and a cancellation would be a crash
    try:
        yield
    finally:
        ray.shutdown()
