"""Waiting in tests: for what is to happen, never for a time. A slow machine makes the suite slow, not red.

`HANGS_AFTER_S` only ends what hangs: on two idle cores nothing takes a twentieth of it. On a very slow machine set
ROPEWAY_TEST_PATIENCE to a factor.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

PATIENCE = float(os.environ.get("ROPEWAY_TEST_PATIENCE", "1"))
HANGS_AFTER_S = 1200 * PATIENCE  # one wait, one request, one process
TEST_HANGS_AFTER_S = 3 * HANGS_AFTER_S  # one test

_SECONDS, _MILLISECONDS = str(int(HANGS_AFTER_S)), str(int(HANGS_AFTER_S * 1000))

# Ray takes a node for dead that is only slow, and `ray start` ends with the first of its processes that gives up waiting.
# A process that is really gone refuses its health checks at once, so it is still noticed within seconds.
PATIENT_RAY = {
    "RAY_health_check_timeout_ms": _MILLISECONDS,
    "RAY_health_check_period_ms": "1000",
    "RAY_io_context_monitor_healthy_deadline_ms": _MILLISECONDS,
    "RAY_grpc_keepalive_timeout_ms": _MILLISECONDS,
    "RAY_agent_register_timeout_ms": _MILLISECONDS,
    "RAY_worker_register_timeout_seconds": _SECONDS,
    "RAY_gcs_server_request_timeout_seconds": _SECONDS,
    "RAY_gcs_server_port_wait_time_s": _SECONDS,
    "RAY_py_gcs_connect_timeout_s": _SECONDS,
    "RAY_raylet_start_wait_time_s": _SECONDS,
    "RAY_actor_scheduling_queue_max_reorder_wait_seconds": _SECONDS,
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": _SECONDS,
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": _SECONDS,
    "RAY_DASHBOARD_GCS_RPC_TIMEOUT_SECONDS": _SECONDS,
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": _SECONDS,
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": _SECONDS,
}
PATIENT_PREFECT = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": _SECONDS,
    "PREFECT_SERVER_DATABASE_TIMEOUT": _SECONDS,
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": _SECONDS,
    "PREFECT_API_REQUEST_TIMEOUT": _SECONDS,
}

Result = TypeVar("Result")


class EndedTooSoon(Exception):
    """A process ended by itself before the test could interrupt it."""


def wait_until(
    condition: Callable[[], Any], what: object = "", process: subprocess.Popen[Any] | None = None, step_s: float = 0.05
) -> Any:
    """The first true value of `condition`; EndedTooSoon where `process` ends first, AssertionError for one that hangs."""
    deadline = time.monotonic() + HANGS_AFTER_S
    while True:
        ended = process is not None and process.poll() is not None  # asked first: its last act may be what is waited for
        if found := condition():
            return found
        if ended:
            raise EndedTooSoon(what)
        assert time.monotonic() < deadline, f"not within {HANGS_AFTER_S:.0f} s: {what}"
        time.sleep(step_s)


def interrupted(attempt: Callable[[int], Result], amounts: Iterable[int] = (1, 4, 16)) -> Result:
    """What `attempt(amount)` returns; with more work again where the work was over before it could be interrupted."""
    for amount in amounts:
        try:
            return attempt(amount)
        except EndedTooSoon as error:
            told = error
    pytest.fail(f"Even with the most work it ended before it could be interrupted: {told}")
