"""The GPU limit on a real server: made when missing, left as it is, strict, and free again when its holder is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from data_schemas.params import RayParams
from flows.limits import LIMIT, forgets_leases, limit_name
from tests.flows.prefect_server import PrefectServer
from tests.waiting import HANGS_AFTER_S, wait_until

HOLDER = """
import sys
from pathlib import Path
from prefect import flow
from data_schemas.params import RayParams
from flows.limits import gpu_turn

@flow
def hold(mark: str, until: str) -> None:
    with gpu_turn(RayParams(use_gpu=True), print, lease_s=60):
        Path(mark).touch()
        while not Path(until).exists():
            import time
            time.sleep(0.1)

hold(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("local", LIMIT),
        ("http://head:8265", "ropeway-gpu-head"),
        ("https://ray.example.org/", "ropeway-gpu-ray.example.org"),
        ("10.0.0.1:6379", "ropeway-gpu-10.0.0.1"),
        ("auto", "ropeway-gpu-auto"),
    ],
)
def test_each_cluster_has_a_limit_of_its_own(address: str, name: str) -> None:
    assert limit_name(RayParams(address=address)) == name


def test_two_runs_never_hold_the_gpus_at_once(prefect_server, tmp_path: Path) -> None:
    def hold(name: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", HOLDER, str(tmp_path / f"{name}.has"), str(tmp_path / f"{name}.ends")]
        return subprocess.Popen(words, env=prefect_server.environment(tmp_path), start_new_session=True)

    def has(name: str) -> bool:
        return (tmp_path / f"{name}.has").exists()

    def slots() -> int:
        return int(prefect_server.get(f"v2/concurrency_limits/{LIMIT}")["active_slots"])

    holders = {name: hold(name) for name in ("a", "b")}
    try:
        wait_until(lambda: has("a") or has("b"))
        first, second = ("a", "b") if has("a") else ("b", "a")
        limit = prefect_server.get(f"v2/concurrency_limits/{LIMIT}")
        assert (limit["limit"], limit["active_slots"]) == (1, 1)

        def second_waits() -> bool:  # its run is there, and it has asked for the slot in vain
            runs = prefect_server.post("flow_runs/filter", flows={"name": {"any_": ["hold"]}})
            return len([run for run in runs if run["state"]["type"] == "RUNNING"]) == 2

        wait_until(second_waits)
        assert not has(second)
        os.killpg(holders[first].pid, signal.SIGKILL)
        wait_until(lambda: has(second), "the lease of the killed one ends", holders[second])
        assert slots() == 1
        (tmp_path / f"{second}.ends").touch()
        assert holders[second].wait(HANGS_AFTER_S) == 0
        wait_until(lambda: slots() == 0)
    finally:
        for holder in holders.values():
            if holder.poll() is None:
                os.killpg(holder.pid, signal.SIGKILL)
            holder.wait()


def test_a_limit_that_exists_is_left_as_it_is(prefect_server, tmp_path: Path) -> None:
    prefect_server.post("v2/concurrency_limits/", name="ropeway-gpu-farm", limit=3)
    code = "from flows.limits import ensure_limit; ensure_limit('ropeway-gpu-farm'); ensure_limit('ropeway-gpu-new')"
    subprocess.run([sys.executable, "-c", code], env=prefect_server.environment(tmp_path), check=True)
    assert prefect_server.get("v2/concurrency_limits/ropeway-gpu-farm")["limit"] == 3
    assert prefect_server.get("v2/concurrency_limits/ropeway-gpu-new")["limit"] == 1


def test_a_server_that_keeps_its_leases_is_told_from_one_that_does_not(
    prefect_server, prefect_tables: Path, tmp_path: Path
) -> None:
    with temporary_settings({PREFECT_API_URL: prefect_server.url}):
        assert not forgets_leases()
    by_default = PrefectServer(tmp_path, prefect_tables, keeps_leases=False)
    try:
        by_default.start()
        with temporary_settings({PREFECT_API_URL: by_default.url}):
            assert forgets_leases()
    finally:
        by_default.stop()
