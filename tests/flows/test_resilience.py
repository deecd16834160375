"""What may happen to a run in the middle of training: it is cancelled, killed, or its server goes away. Real signals, one storage.

The same parameters are triggered three times and meet the same checkpoint: cancelled, then SIGKILLed, then run to the end while
the server is killed and started again.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.flows.prefect_server import wait_until
from tests.flows.small_run import small_params

ROPEWAY = str(Path(sys.executable).parent / "ropeway")
_STEPS = 160


@pytest.fixture(scope="module")
def served(prefect_server, tmp_path_factory):
    """(process, log) of `ropeway serve`."""
    home = tmp_path_factory.mktemp("serve")
    log = home / "log.txt"
    environment = prefect_server.environment(home) | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with log.open("w") as file:
        process = subprocess.Popen([ROPEWAY, "serve"], env=environment, stdout=file, stderr=file, start_new_session=True)
    wait_until(lambda: "being served" in log.read_text())
    yield process, log
    for child in below(process):
        child.kill()
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def params(tmp_path_factory, tokenizer):
    training = {"steps": _STEPS, "checkpoint_every": 5, "validate_every": 80}
    params = small_params(tmp_path_factory.mktemp("resilience"), tokenizer, training=training)
    params["corpus"]["sources"] = [{"uri": uri} for uri in params["corpus"]["sources"]]
    return params | {"run_name": "resilient"}


def below(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def trigger(server, params) -> str:
    (deployment,) = [d for d in server.post("deployments/filter") if str(d["entrypoint"]).endswith("finetune.finetune")]
    run = server.post(
        f"deployments/{deployment['id']}/create_flow_run", parameters={"params": params}, state={"type": "SCHEDULED"}
    )
    return str(run["id"])


def steps_done(params) -> int:
    logs = Path(params["storage"]).glob("work/finetune/*/progress.jsonl")
    return max((len(log.read_text().splitlines()) for log in logs), default=0)


def train_past(server, run: str, params, step: int) -> None:
    def there() -> bool:
        state = server.flow_run(run)["state"]
        assert state["type"] in ("SCHEDULED", "PENDING", "RUNNING"), state
        return steps_done(params) >= step

    wait_until(there, timeout=240)


def log_of(server, run: str) -> str:
    found = server.post("logs/filter", logs={"flow_run_id": {"any_": [run]}}, limit=200)
    return "\n".join(line["message"] for line in found)


def test_cancelled_then_killed_then_without_a_server_the_same_training_ends(prefect_server, served, params) -> None:
    process, _ = served
    run = trigger(prefect_server, params)
    train_past(prefect_server, run, params, 7)
    training = below(process)
    assert any("RayTrainWorker" in " ".join(child.cmdline()) for child in training)
    cancelled = time.monotonic()
    prefect_server.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    on_ray = [child for child in training if child.ppid() != process.pid]
    wait_until(lambda: not alive(on_ray), timeout=60)
    assert time.monotonic() - cancelled < 15
    wait_until(lambda: prefect_server.flow_run(run)["state"]["type"] == "CANCELLED", timeout=60)
    reached = steps_done(params)
    assert reached < _STEPS

    run = trigger(prefect_server, params)
    train_past(prefect_server, run, params, reached + 5)
    training = below(process)
    idle = [child for child in training if child.cmdline()[0].startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))]
    (flow,) = [child for child in training if child.ppid() == process.pid]
    os.kill(flow.pid, signal.SIGKILL)
    wait_until(lambda: not [child for child in alive(training) if child not in idle], timeout=30)
    wait_until(lambda: prefect_server.flow_run(run)["state"]["type"] == "CRASHED", timeout=60)
    log = log_of(prefect_server, run)
    assert "ingest: found" in log
    assert "prepare: found" in log
    reached = steps_done(params)

    run = trigger(prefect_server, params)
    train_past(prefect_server, run, params, reached + 2)
    prefect_server.kill()
    here = steps_done(params)
    wait_until(lambda: steps_done(params) >= min(here + 40, _STEPS), timeout=120)
    prefect_server.start()
    wait_until(lambda: (state := prefect_server.flow_run(run)["state"]["type"]) != "RUNNING" and state, timeout=200)
    assert prefect_server.flow_run(run)["state"]["type"] == "COMPLETED"
    wait_until(lambda: "finetune: made in" in log_of(prefect_server, run), timeout=30)  # lines are sent in batches
    assert prefect_server.artifacts_of(run)["finetune-summary"]["type"] == "table"
    (training_log,) = Path(params["storage"]).glob("checkpoints/*/training_log.jsonl")
    assert len(training_log.read_text().splitlines()) == _STEPS
