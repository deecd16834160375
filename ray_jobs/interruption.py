"""Waiting for Ray so that a signal ends the wait.

A Python signal handler's exception is lost while the main thread is inside Ray's own waiting, so another thread waits there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def interruptibly(wait: Callable[[], T]) -> T:
    """What `wait()` returns or raises, computed in a thread while this one listens to signals.

    What a signal handler raises passes through at once and leaves the thread behind; the caller ends it by `ray.shutdown()`.
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
