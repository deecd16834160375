"""Every Python below `make test-fast` loads this at its start, processes that tests start included: none may be, or start, a server.

Listening on a port and starting Ray or a browser are refused. What was tried is written to the file that ROPEWAY_SERVERS_TRIED
names, so that the test fails that tried it, whatever became of the refusal.
"""

import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

VARIABLE = "ROPEWAY_SERVERS_TRIED"
PROGRAMS = {"raylet", "gcs_server", "ray", "prefect", "uvicorn", "chromium", "chromium-browser", "google-chrome", "chrome"}
_listen = socket.socket.listen


def refuse(what: str) -> NoReturn:
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
        file.write(f"{what}\n")
    if threading.current_thread() is not threading.main_thread():  # which may be waiting for this server
        os.kill(os.getpid(), signal.SIGALRM)  # ends a process, and in pytest, by its timeout, the test
    raise PermissionError(
        f"refused to {what}: a test of `make test-fast` starts no server, so let it use the fixture `servers`"
    )


def listen(self: socket.socket, *backlog: int) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        refuse(f"listen on {self.getsockname()}")
    _listen(self, *backlog)


def hear(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: Ray's own servers are no Python."""
    if event == "subprocess.Popen":
        words = [arguments[1]] if isinstance(arguments[1], str | bytes) else list(arguments[1])[:4]  # `python -m uvicorn ...`
        for program in PROGRAMS & {os.path.basename(os.fsdecode(word)) for word in words}:
            refuse(f"start {program}")


if VARIABLE in os.environ:
    socket.socket.listen = listen  # type: ignore[method-assign]
    sys.addaudithook(hear)
