"""A Ray cluster as an administrator starts it, `ray start`, on free ports of 127.0.0.1, stopped by process id."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import HANGS_AFTER_S, PATIENT_RAY, EndedTooSoon, interrupted, wait_until

BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]


class RealCluster:
    """A head without CPUs for work, with its dashboard, and worker nodes that come and go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}  # by name
        self._gcs_port, self._dashboard_port = free_ports(2)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._dashboard_port}"

    @property
    def gcs_address(self) -> str:
        return f"127.0.0.1:{self._gcs_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a shell on the cluster has: this Python first, no tokens, nothing of this process's clusters."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ROPEWAY_"))}
        return kept | PATIENT_RAY | {
            "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
            "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
        }  # fmt: skip

    def start_head(self, num_cpus: int) -> None:
        """Start it, and wait until it is a node of its own cluster."""
        self._start(
            "--head", f"--port={self._gcs_port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self._dashboard_port}",
            f"--temp-dir={self._folder}", f"--ray-client-server-port={free_ports(1)[0]}", "--no-monitor", f"--num-cpus={num_cpus}",
            name="head",
        )  # fmt: skip

    def start_node(self, num_cpus: int, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a worker node, and wait until it is there.

        Its processes are of one session, so that it can be killed as a machine is.
        """
        name = f"worker-{len(self._nodes)}"
        return self._start(f"--address={self.gcs_address}", f"--num-cpus={num_cpus}", name=name, prefix=prefix)

    def node_id(self, node: subprocess.Popen[bytes]) -> str:
        """Ray's id of a node that is alive."""
        name = next(name for name, process in self._nodes.items() if process is node)
        return str(self._alive()[name])

    def num_alive(self) -> int:
        return len(self._alive())

    def _alive(self) -> dict[str, str]:
        """Name and id of the nodes that are alive; empty while no dashboard answers."""
        try:
            with urllib.request.urlopen(f"{self.address}/api/v0/nodes?limit=1000", timeout=HANGS_AFTER_S) as answer:
                rows = json.load(answer)["data"]["result"]["result"]
        except OSError:
            return {}
        return {row["node_name"]: row["node_id"] for row in rows if row["state"] == "ALIVE"}

    def wait_until(self, condition: Callable[[], Any], what: object) -> Any:
        """As `tests.waiting.wait_until`, as long as the head lives."""
        try:
            return wait_until(condition, what, self._nodes["head"])
        except EndedTooSoon as error:
            raise AssertionError(f"the cluster died while waiting: {error}") from error

    def log(self) -> str:
        """What `ray start` said, and the last lines of the head's own logs."""
        said = [self._folder / "nodes.txt"]
        said += [
            path for path in sorted(self._folder.glob("session_latest/logs/*.*")) if path.suffix in (".log", ".err", ".out")
        ]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in said if path.exists())

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """SIGKILL to every process of the node, as when its machine is lost."""
        children = _family(node)
        node.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        node.wait()

    def workers(self, name: str) -> dict[int, subprocess.Popen[bytes]]:
        """The processes that run an actor of that name, by process id: the node each one is on."""
        found = {}
        for node in self._nodes.values():
            for process in _family(node):
                with contextlib.suppress(psutil.Error):
                    if name in " ".join(process.cmdline()):
                        found[process.pid] = node
        return found

    def require_alive(self) -> None:
        """AssertionError, with its logs printed, where the head has died by itself."""
        if self._nodes["head"].poll() is not None:
            print(self.log())
            raise AssertionError("the cluster's head died during the tests; its logs are printed above")

    def stop(self) -> None:
        for node in reversed(self._nodes.values()):
            if node.poll() is None:
                self.kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, *arguments: str, name: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """`ray start`, again where it gives up: it waits 30 s for its node, which no setting changes."""

        def start(_: int) -> subprocess.Popen[bytes]:
            node = self._nodes[name] = self._started(*arguments, f"--node-name={name}", prefix=prefix)
            wait_until(lambda: name in self._alive(), f"node {name} is there", node)
            return node

        try:
            return interrupted(start, range(5))
        except BaseException:
            print(self.log())
            raise

    def _started(self, *arguments: str, prefix: tuple[str, ...]) -> subprocess.Popen[bytes]:
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
        ports = [
            f"--{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)
        ]  # each has one by default
        return subprocess.Popen(
            [*prefix, str(BIN / "ray"), "start", *arguments, "--node-ip-address=127.0.0.1", *ports, "--object-store-memory=100000000",
             "--disable-usage-stats", "--block"],
            cwd=self._folder, env=self.environment, start_new_session=True,
            stdout=(self._folder / "nodes.txt").open("ab"), stderr=subprocess.STDOUT,
        )  # fmt: skip


def _family(node: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(node.pid).children(recursive=True)
    return []


@contextlib.contextmanager
def real_cluster(num_cpus: int) -> Iterator[RealCluster]:
    """A head with so many CPUs. Its folder has a short name, for Ray's sockets must fit 107 characters."""
    cluster = RealCluster(Path(tempfile.mkdtemp(prefix="rw", dir="/tmp")))
    try:
        cluster.start_head(num_cpus)
        yield cluster
        cluster.require_alive()
    finally:
        cluster.stop()
