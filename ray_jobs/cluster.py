"""A Ray cluster to run on, at an address or private to this process, and waiting for it so that a signal ends the wait."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from data_schemas.errors import UserError
from data_schemas.params import RayParams

T = TypeVar("T")


@contextlib.contextmanager
def connected(params: RayParams) -> Iterator[None]:
    """Connect to Ray for the duration of the block, quietly. A process that is connected already stays as it is.

    `local` starts a private cluster, with all CPUs of this machine or as many as the workers need if that is more, and stops it
    afterwards. UserError if the cluster cannot be reached.
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
        raise UserError(
            f"Cannot reach a Ray cluster at ray.address {params.address!r} ({detail}): start it, or correct the address."
        ) from error
    if callable(on_termination) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_termination)  # Ray's own handler exits, which would turn a cancellation into a crash
    try:
        yield
    finally:
        ray.shutdown()


def interruptibly(wait: Callable[[], T]) -> T:
    """What `wait()` returns or raises, computed in another thread while this one reacts to signals.

    The exception of a Python signal handler is lost while the main thread is inside Ray's own waiting. Here it passes through at
    once and leaves the other thread running; the caller ends that by `ray.shutdown()`.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(wait())
        except BaseException as error:
            failed.append(error)

    if threading.current_thread() is not threading.main_thread():
        return wait()
    thread: Any = threading.Thread(target=work, name="waiting for Ray", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(1.0)
    if failed:
        raise failed[0]
    return done[0]
