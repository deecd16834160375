"""Something done every few seconds beside a stage, which never waits for it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

_FAREWELL_S = 15.0  # the last call may meet a server that is away


class Periodic:
    """Calls `update` in a thread of its own while the context is open, and once more when it ends without an exception.

    `update` must not raise. It may be slow: the end waits for it some seconds at most, and not at all behind an exception,
    such as a cancellation. It sees the context variables of the thread that entered.
    """

    def __init__(self, update: Callable[[], None], every_s: float) -> None:
        self._update, self._every_s = update, every_s
        self._ended = threading.Event()
        self._failed = False

    def __enter__(self) -> Periodic:
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="periodic", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._failed = kind is not None
        self._ended.set()
        if not self._failed:
            self._thread.join(_FAREWELL_S)

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self._update()
        if not self._failed:
            self._update()
