"""A real Prefect server on loopback, with a database of its own, that can be stopped, killed and started again."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.limits import KEEPS_LEASES
from tests.waiting import HANGS_AFTER_S, wait_until


def copy_tables(tables: Path, home: Path) -> None:
    """Give a Prefect that will start in `home` the database in `tables`; where there is none yet it makes its own."""
    if tables.exists():
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tables, home / "prefect.db")


@contextlib.contextmanager
def with_tables(tables: Path, home: Path) -> Iterator[None]:
    """Start a server in `home` inside the block. The first one makes all tables, half of its work, and those after it copy them."""
    database = home / "prefect.db"
    if database.exists():
        yield
        return
    with tables.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tables.exists():
            yield
            made = tables.with_suffix(".made")
            with contextlib.closing(sqlite3.connect(database)) as source, contextlib.closing(sqlite3.connect(made)) as copy:
                source.backup(copy)
            made.rename(tables)
            return
    copy_tables(tables, home)
    yield


class PrefectServer:
    """A server below `home`; it keeps its port and database over `kill()` and `start()`.

    `tables` is the file of an empty database that all servers of the test run share.
    """

    def __init__(self, home: Path, tables: Path, keeps_leases: bool = True) -> None:
        self.home = home
        self._tables = tables
        self._keeps_leases = keeps_leases
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.ui = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.ui}/api"  # what PREFECT_API_URL is set to
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        environment |= {"PREFECT_HOME": str(self.home / "server"), "PREFECT_UI_API_URL": self.url}
        if self._keeps_leases:
            name, _, value = KEEPS_LEASES.partition("=")
            environment[name] = value
        with with_tables(self._tables, self.home / "server"):
            with (self.home / "server.log").open("a") as log:
                self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            wait_until(self._answers, "the Prefect server answers")

    def kill(self) -> None:
        """SIGKILL the server and what it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:  # nothing is asked of it any more, so how it ends does not matter
            self.kill()

    def environment(self, home: Path) -> dict[str, str]:
        """For a process that works with this server and keeps its own Prefect files below `home`."""
        return os.environ | {"PREFECT_API_URL": self.url, "PREFECT_HOME": str(home / "prefect"), "OMP_NUM_THREADS": "1"}

    def post(self, path: str, **body: Any) -> Any:
        return self._request("POST", path, body)

    def patch(self, path: str, **body: Any) -> Any:
        return self._request("PATCH", path, body)

    def get(self, path: str) -> Any:
        return self._request("GET", path)

    def delete(self, path: str) -> None:
        self._request("DELETE", path)

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self.get(f"flow_runs/{flow_run_id}")
        return run

    def runs_of(self, name: str) -> list[dict[str, Any]]:
        """The flow runs with this in their name; other tests' runs are on the same server."""
        runs: list[dict[str, Any]] = self.post("flow_runs/filter", flow_runs={"name": {"like_": name}})
        return runs

    def artifacts_of(self, flow_run_id: str) -> dict[str, dict[str, Any]]:
        found = self.post("artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run_id]}})
        return {artifact["key"]: artifact for artifact in found}

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        deadline = time.monotonic() + HANGS_AFTER_S
        while True:
            try:
                content = urllib.request.urlopen(request, timeout=HANGS_AFTER_S).read()
                return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                if (
                    error.code != 503 or time.monotonic() > deadline
                ):  # 503: the database is busy; Prefect's own client waits too
                    raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from error
                time.sleep(0.5)
            except OSError as error:
                raise AssertionError(f"{method} {path}: {error}; the server's log ends with\n{self._log()}") from error

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log()
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=2).read()
        except OSError:
            return False
        return True

    def _log(self) -> str:
        return (self.home / "server.log").read_text()[-3000:]
