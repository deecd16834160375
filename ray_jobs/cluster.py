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
from ray_jobs.private_cluster import private_to_this_run

T = TypeVar("T")


@contextlib.contextmanager
def connected(params: RayParams) -> Iterator[None]:
    """Connect to Ray for the duration of the block, quietly. A process that is connected already stays as it is.

    `local` starts a private cluster (see `ray_jobs.private_cluster`), with all CPUs of this machine or as many as the workers need
    if that is more, and stops it afterwards. Any other address is reached with the token that the environment gives. UserError if
    the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2", "1")
    import ray

    if ray.is_initialized():
        yield
        return
    from ray.exceptions import AuthenticationError

    on_termination = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        try:
            if params.address == "local":
                folder = stack.enter_context(private_to_this_run())
                stack.callback(ray.shutdown)
                needed = int(params.num_workers * params.cpus_per_worker + 0.999)
                ray.init(
                    address="local",
                    num_cpus=max(needed, os.cpu_count() or 1),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=str(folder),
                )
            else:
                stack.callback(ray.shutdown)
                ray.init(address=params.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
            if _is_refused(error):
                raise UserError(
                    f"The Ray cluster at ray.address {params.address!r} refuses this token, or asks for one: set RAY_AUTH_MODE=token and "
                    "its RAY_AUTH_TOKEN."
                ) from error
            detail = " ".join(str(error).split())[:200]
            raise UserError(
                f"Cannot reach a Ray cluster at ray.address {params.address!r} ({detail}): start it, or correct the address."
            ) from error
        if callable(on_termination) and threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGTERM, on_termination
            )  # Ray's own handler exits, which would turn a cancellation into a crash
        yield


def _is_refused(error: BaseException | None) -> bool:
    """Whether the cluster refused the token: Ray tries again for a while, and then hides that below another error."""
    from ray.exceptions import AuthenticationError

    while error is not None:
        if isinstance(error, AuthenticationError) or "InvalidAuthToken" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


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
