"""A Ray cluster as an administrator starts it, `ray start`, on free ports of 127.0.0.1, stopped by process id."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
    return found


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
        self._nodes: list[subprocess.Popen[bytes]] = []
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
        return kept | {
            "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
            "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
        }  # fmt: skip

    def start_head(self, num_cpus: int) -> None:
        client_port = free_ports(1)[0]
        self._start(
            "--head", f"--port={self._gcs_port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self._dashboard_port}",
            f"--temp-dir={self._folder}", f"--ray-client-server-port={client_port}", f"--num-cpus={num_cpus}",
        )  # fmt: skip

        def answers() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/api/version", timeout=2) as answer:
                return bool(answer.status == 200)
            return False

        wait_until(answers, 90, "the dashboard answers")

    def start_node(self, num_cpus: int, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """A worker node; its processes are of one session, so that it can be killed as a machine is."""
        return self._start(f"--address={self.gcs_address}", f"--num-cpus={num_cpus}", prefix=prefix)

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
        for node in self._nodes:
            for process in _family(node):
                with contextlib.suppress(psutil.Error):
                    if name in " ".join(process.cmdline()):
                        found[process.pid] = node
        return found

    def stop(self) -> None:
        for node in reversed(self._nodes):
            if node.poll() is None:
                self.kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
        ports = [
            f"--{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)
        ]  # each has one by default
        node = subprocess.Popen(
            [*prefix, str(BIN / "ray"), "start", *arguments, "--node-ip-address=127.0.0.1", *ports, "--object-store-memory=100000000",
             "--disable-usage-stats", "--block"],
            cwd=self._folder, env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=(self._folder / "nodes.txt").open("ab"),
        )  # fmt: skip
        self._nodes.append(node)
        return node


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
    finally:
        cluster.stop()
