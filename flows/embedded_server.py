"""Prefect's temporary server: the one that Prefect starts for a run when PREFECT_API_URL is not set."""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import Any

from data_schemas.errors import UserError

_TELLS_AFTER_S = 30.0
_STARTS_WITHIN_S = 600


def ensure_server() -> None:
    """Start the temporary server if there is no other. UserError if it does not start within ten minutes.

    Ctrl-C does not reach the server, so that it can still take down that the run was cancelled. It stops with this process.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE

    if PREFECT_API_URL.value() or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        return
    failed: list[BaseException] = []
    thread = threading.Thread(target=_start, args=(failed,), name="Prefect server", daemon=True)
    started, has_told = time.monotonic(), False
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        if not has_told and time.monotonic() - started > _TELLS_AFTER_S:
            has_told = True
            print("waiting for Prefect's server to start; --no-prefect runs without one", file=sys.stderr, flush=True)
    if failed:
        detail = " ".join(str(failed[0]).split())[:200] or type(failed[0]).__name__
        raise UserError(f"Prefect's temporary server did not start ({detail}): run again, or add --no-prefect.") from failed[0]


def kill_server() -> None:
    """End the temporary server without waiting for it, if this process has one."""
    server = _server()
    if server.server_process is not None:
        server.server_process.terminate()


def _server() -> Any:
    from prefect.server.api.server import SubprocessASGIServer

    return SubprocessASGIServer()


def _start(failed: list[BaseException]) -> None:
    """In a thread that blocks SIGINT, which the server's process inherits."""
    import httpx

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    server = _server()
    try:
        server.start(timeout=_STARTS_WITHIN_S)
    except httpx.TimeoutException:  # it listens, and the machine is too slow for Prefect's own patience
        try:
            _wait_until_healthy(server)
        except Exception as error:
            failed.append(error)
    except Exception as error:
        failed.append(error)


def _wait_until_healthy(server: Any) -> None:
    import httpx

    deadline = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < deadline:
        if server.server_process is None or server.server_process.poll() is not None:
            raise RuntimeError("its process has ended")
        try:
            if httpx.get(f"{server.api_url}/health", timeout=60).status_code == 200:
                server.running = True
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError("it does not answer")
