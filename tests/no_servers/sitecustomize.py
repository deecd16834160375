"""Every Python below `make test-fast` loads this at its start, processes that tests start included: none may be, or start, a server.

Listening on a port and starting Ray or a browser are refused. What was tried is written to the file that ROPEWAY_SERVERS_TRIED
names, so that the test fails that tried it, whatever became of the refusal.
"""

import os
import sys
from typing import Any

VARIABLE = "ROPEWAY_SERVERS_TRIED"
PROGRAMS = {"raylet", "gcs_server", "ray", "prefect", "uvicorn", "chromium", "chromium-browser", "google-chrome", "chrome"}


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook."""
    if event == "socket.bind" and isinstance(arguments[1], tuple):  # a Unix socket's address is a path
        tried = f"listen on {arguments[1]}"
    elif event == "subprocess.Popen" and os.path.basename(os.fsdecode(arguments[0] or arguments[1][0])) in PROGRAMS:
        tried = f"start {arguments[0]}"
    else:
        return
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
        file.write(f"{tried}\n")
    raise PermissionError(
        f"refused to {tried}: a test of `make test-fast` starts no server, so let it use the fixture `servers`"
    )


if VARIABLE in os.environ:
    sys.addaudithook(refuse)
