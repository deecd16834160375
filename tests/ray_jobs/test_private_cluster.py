"""Local Ray is closed: loopback only, a token that nobody sees, and nothing for another user or another network."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_schemas.errors import UserError
from data_schemas.params import RayParams
from ray_jobs.cluster import connected
from ray_jobs.private_cluster import private_folder
from tests import PYTHONPATH
from tests.waiting import HANGS_AFTER_S

NOBODY = 65534
LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
STRANGER = Path(__file__).with_name("stranger.py")


class Run:
    """A local cluster with a worker at work, and what its processes listen on."""

    def __init__(self, others: set[psutil.Process], theirs: set[int]) -> None:
        """`others`: this process and its children before the cluster started; their ports are those of servers of other tests."""
        import ray

        @ray.remote
        class Worker:
            def address(self) -> str:
                return str(ray.util.get_node_ip_address())

        self.theirs = theirs
        self.worker = Worker.remote()
        self.worker_address = ray.get(self.worker.address.remote())
        self.gcs = ray.get_runtime_context().gcs_address
        self.token = os.environ["RAY_AUTH_TOKEN"]
        self.folder = private_folder()
        self.processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        self.processes = [process for process in self.processes if process not in others or process.pid == os.getpid()]

    def listening(self) -> dict[int, tuple[str, str]]:
        """The address and the process of each port."""
        found = {}
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                name = process.name()
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port not in self.theirs:
                        found[connection.laddr.port] = (connection.laddr.ip, name)
        return found


def ports_of(processes: set[psutil.Process]) -> set[int]:
    """The ports on which these processes listen."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {one.laddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    return found


@pytest.fixture(scope="module")
def run(servers: None) -> Iterator[Run]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_MODE", "disabled")  # a user who has set this gets a token all the same
        others = {psutil.Process(), *psutil.Process().children(recursive=True)}
        theirs = ports_of(others)
        with connected(RayParams(num_workers=2)):
            yield Run(others, theirs)


def as_nobody() -> int:
    """The id of another user; skips the test where this process cannot become it."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    return NOBODY


def told_to_a_stranger(run: Run, user: int, token: str, ports: list[int]) -> dict[str, Any]:
    asked = json.dumps({"user": user, "gcs": run.gcs, "ports": ports})
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "RAY_NUM_REDIS_GET_RETRIES": "2",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or `ray.init` would ask at the machine's address
    }
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    told = subprocess.run(
        [sys.executable, str(STRANGER), asked], env=environment, capture_output=True, text=True, timeout=HANGS_AFTER_S
    )
    assert told.returncode == 0, told.stderr
    answers: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return answers


def test_everything_listens_on_loopback_only(run: Run) -> None:
    listening = run.listening()
    assert len(listening) >= 6, "the cluster's own ports are seen at all"
    assert {port: found for port, found in listening.items() if found[0] not in LOOPBACK} == {}
    assert run.worker_address == "127.0.0.1"


def test_the_token_is_in_no_argument_and_no_file(run: Run) -> None:
    assert len(run.token) == 64
    arguments = [" ".join(process.cmdline()) for process in run.processes if process.is_running()]
    assert len(arguments) > 5
    assert not [line for line in arguments if run.token in line]
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("raylet") for path in files), "its logs are looked at"
    assert not [path for path in files if run.token.encode() in path.read_bytes()]


def test_its_folder_is_closed_to_other_users(run: Run) -> None:
    assert private_folder().parent.stat().st_mode & 0o777 == 0o700
    nobody = as_nobody()
    looked = subprocess.run(["ls", str(run.folder)], user=nobody, group=nobody, extra_groups=[], capture_output=True)
    assert b"Permission denied" in looked.stderr


@pytest.mark.parametrize("token", ["", "0" * 64], ids=["no token", "a wrong token"])
def test_a_second_user_runs_no_task(run: Run, token: str) -> None:
    told = told_to_a_stranger(run, as_nobody(), token, [])
    assert told["user"] == NOBODY
    assert told["task"] == "refused"


def test_the_same_user_runs_a_task_with_the_token_and_not_without(run: Run) -> None:
    assert told_to_a_stranger(run, os.getuid(), run.token, [])["task"] == "it ran"
    assert told_to_a_stranger(run, os.getuid(), "", [])["task"] == "refused"


def test_every_port_refuses_a_second_user(run: Run) -> None:
    listening = run.listening()
    told = told_to_a_stranger(run, as_nobody(), "", sorted(listening))
    for port, answers in told["ports"].items():
        who = listening[int(port)]
        assert "OK" not in answers["grpc"], who
        assert set(answers["http"]) <= {401}, who
        assert "UNAUTHENTICATED" in answers["grpc"] or answers["http"] == [401], who


def test_another_network_reaches_no_port(run: Run) -> None:
    with second_network() as (here, inside), socket.socket() as open_to_all:
        open_to_all.bind(("0.0.0.0", 0))
        open_to_all.listen()
        ports = sorted(run.listening())
        assert open_to_all.getsockname()[1] in ports
        code = (
            "import json, socket, sys\n"
            "def opens(port):\n"
            "    with socket.socket() as tried:\n"
            "        tried.settimeout(10)\n"
            f"        return tried.connect_ex(({here!r}, port)) == 0\n"
            "print(json.dumps([port for port in json.loads(sys.argv[1]) if opens(port)]))"
        )
        told = subprocess.run(
            [*inside, sys.executable, "-c", code, json.dumps(ports)], capture_output=True, text=True, check=True
        )
        assert json.loads(told.stdout) == [open_to_all.getsockname()[1]], "only the port that this test opened to all"


@contextlib.contextmanager
def second_network() -> Iterator[tuple[str, list[str]]]:
    """This machine's address on a cable to a second network namespace, and the command that runs something in there."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the command ip")
    name = f"rw{os.getpid() % 100000}"
    here, there = "198.18.77.1", "198.18.77.2"
    inside = ["ip", "netns", "exec", name]
    steps = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name],
        ["ip", "addr", "add", f"{here}/30", "dev", f"{name}a"],
        ["ip", "link", "set", f"{name}a", "up"],
        [*inside, "ip", "addr", "add", f"{there}/30", "dev", f"{name}b"],
        [*inside, "ip", "link", "set", f"{name}b", "up"],
    ]
    try:
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"the kernel refuses `{' '.join(step)}`: {done.stderr.strip()}")
        yield here, inside
    finally:
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


CLUSTERS_IN_A_ROW = """
import json, os
from data_schemas.params import RayParams
from ray_jobs.cluster import connected

names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "GLOO_SOCKET_IFNAME", "AUTOSCALER_METRIC_PORT")
before = {name: os.environ.get(name) for name in names}
tokens = []
for _ in range(2):
    with connected(RayParams()):
        import ray
        assert ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid()
        tokens.append(os.environ["RAY_AUTH_TOKEN"])
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    assert {name: os.environ.get(name) for name in names} == before
assert len({*tokens, "of a real cluster"}) == 3
assert not os.path.exists(os.path.expanduser("~/.ray"))
print("done")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("servers")
def test_each_cluster_of_a_process_has_its_own_token_and_leaves_the_users_own_alone(tmp_path: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH") and name != "GLOO_SOCKET_IFNAME"
    }
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": PYTHONPATH, "RAY_AUTH_TOKEN": "of a real cluster"}
    told = subprocess.run(
        [sys.executable, "-c", CLUSTERS_IN_A_ROW], env=environment, capture_output=True, text=True, timeout=HANGS_AFTER_S
    )
    assert told.stdout.strip() == "done", told.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("servers")
def test_training_workers_listen_on_loopback_only(run: Run, tmp_path: Path) -> None:
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    from ray_jobs.finetune.worker_group import torch_config

    def loop(config: dict[str, str]) -> None:
        import ray.train
        import torch

        total = torch.ones(3)
        torch.distributed.all_reduce(total)
        listening = [
            (found.laddr.ip, found.laddr.port)
            for found in psutil.Process().net_connections("tcp")
            if found.status == psutil.CONN_LISTEN
        ]
        rank = ray.train.get_context().get_world_rank()
        Path(config["folder"], f"{rank}.json").write_text(json.dumps({"sum": total.tolist(), "listening": listening}))

    TorchTrainer(
        loop,
        train_loop_config={"folder": str(tmp_path)},
        torch_config=torch_config(),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=ray_run_config(tmp_path),
    ).fit()
    for rank in range(2):
        told = json.loads((tmp_path / f"{rank}.json").read_text())
        assert told["sum"] == [2.0] * 3
        assert len(told["listening"]) >= 2
        assert {address for address, _ in told["listening"]} <= LOOPBACK


def ray_run_config(folder: Path) -> object:
    from ray.train import RunConfig

    return RunConfig(name="meeting", storage_path=str(folder / "train"))


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    made = private_folder().parent
    made.chmod(0o755)
    with pytest.raises(UserError, match=r"Other users can enter or own .*: remove it, or set RAY_TMPDIR\."):
        private_folder()
    made.rmdir()
    made.symlink_to(tmp_path)
    with pytest.raises(UserError, match="Other users can enter"):
        private_folder()


def test_a_cluster_that_asks_for_a_token_is_one_sentence(run: Run) -> None:
    code = (
        "import sys\n"
        "from data_schemas.params import RayParams\n"
        "from ray_jobs.cluster import connected\n"
        "with connected(RayParams(address=sys.argv[1])): pass"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": PYTHONPATH}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    told = subprocess.run(
        [sys.executable, "-c", code, run.gcs], env=environment, capture_output=True, text=True, timeout=HANGS_AFTER_S
    )
    assert "UserError: The Ray cluster at ray.address" in told.stderr
    assert "set RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN." in told.stderr
