"""Ctrl-C in a terminal: one line at once, then whatever is left to stop, and exit status 130 within five seconds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

STATUS = 130
GRACE_S = 3.5  # for the run's own end; then the process exits whatever it is doing
_ACT_S = 0.5

_AT_THE_LATEST: list[Callable[[], None]] = []
_INTERRUPTED = threading.Event()


def at_the_latest(act: Callable[[], None]) -> None:
    """Call `act` before a process exits that could not end by itself. It has half a second, and its exceptions are ignored."""
    _AT_THE_LATEST.append(act)


def was_interrupted() -> bool:
    """Whether SIGINT has come since `stop_on_interrupt`."""
    return _INTERRUPTED.is_set()


def stop_on_interrupt() -> None:
    """From now on, SIGINT prints how far the run has come, silences the process, and raises KeyboardInterrupt in the main thread.

    Nothing else is printed then. A second SIGINT, or GRACE_S without an end, exits at once.
    """
    signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, lambda number, frame: _exit_now())
    _INTERRUPTED.set()
    os.write(2, f"{_line()}\n".encode())  # `print` may be what was interrupted
    _be_silent()
    threading.Thread(target=_exit_later, name="interrupted", daemon=True).start()
    raise KeyboardInterrupt


def _line() -> str:
    reached = sys.modules.get("ray_jobs.reached")
    return f"ropeway: {reached.REACHED.describe() if reached else 'stopped'}"


def _be_silent() -> None:
    """No log line, traceback or progress of any thread or library after this."""
    logging.disable(logging.CRITICAL)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _exit_later() -> None:
    threading.Event().wait(GRACE_S)
    _exit_now()


def _exit_now() -> NoReturn:
    for act in _AT_THE_LATEST:
        thread = threading.Thread(target=_quietly, args=(act,), daemon=True)
        thread.start()
        thread.join(_ACT_S)
    os._exit(STATUS)


def _quietly(act: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        act()
