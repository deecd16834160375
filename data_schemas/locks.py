"""Locks on files, which say who holds them. The kernel frees the lock of a process that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

_WHEN = "%Y-%m-%d %H:%M:%S"


@contextlib.contextmanager
def locked(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on `path` for the duration of the block.

    If another process holds it, `tell` gets `process PID, since TIME` once, and this one waits.
    """
    with path.open("a+", encoding="utf-8") as file:
        if not _take(file, wait=False):
            tell(holder_of(path))
            _take(file, wait=True)
        yield


@contextlib.contextmanager
def locked_at_once(path: Path) -> Iterator[bool]:
    """Hold the lock on `path` for the duration of the block; gives False, and holds nothing, if another process has it."""
    with path.open("a+", encoding="utf-8") as file:
        yield _take(file, wait=False)


def holder_of(path: Path) -> str:
    """`process PID, since TIME`, as the process that holds the lock on `path` has written it."""
    return path.read_text(encoding="utf-8").strip() or "another process"


def _take(file: TextIO, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()}, since {time.strftime(_WHEN)}\n")
    file.flush()
    return True
