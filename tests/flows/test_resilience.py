"""What may happen to a run in the middle of training: it is cancelled, killed, or its server goes away. Real signals, one storage.

The same parameters are triggered three times and meet the same checkpoint: cancelled, then SIGKILLed, then run to the end while
the server is killed and started again.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.flows.small_run import small_params
from tests.waiting import EndedTooSoon, interrupted, wait_until

ROPEWAY = str(Path(sys.executable).parent / "ropeway")


@pytest.fixture(scope="module")
def served(prefect_server, tmp_path_factory):
    """(process, log) of `ropeway serve`."""
    home = tmp_path_factory.mktemp("serve")
    log = home / "log.txt"
    environment = prefect_server.environment(home) | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with log.open("w") as file:
        process = subprocess.Popen([ROPEWAY, "serve"], env=environment, stdout=file, stderr=file, start_new_session=True)
    wait_until(lambda: "being served" in log.read_text(), "the flows are served", process)
    yield process, log
    for child in below(process):
        child.kill()
    process.kill()
    process.wait()


def params_of(home: Path, tokenizer, steps: int):
    training = {"steps": steps, "checkpoint_every": 5, "validate_every": steps // 2}
    params = small_params(home, tokenizer, training=training, ray={"num_workers": 1})
    params["corpus"]["sources"] = [{"uri": uri} for uri in params["corpus"]["sources"]]
    return params | {"run_name": f"resilient-{steps}"}


def below(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; one empty word for a process that has ended meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline() or [""]
    return [""]


def parent_of(process: psutil.Process) -> int | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.ppid()
    return None


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def trigger(server, params) -> str:
    (deployment,) = [d for d in server.post("deployments/filter") if str(d["entrypoint"]).endswith("pipeline.finetune")]
    run = server.post(
        f"deployments/{deployment['id']}/create_flow_run", parameters={"params": params}, state={"type": "SCHEDULED"}
    )
    return str(run["id"])


def steps_done(params) -> int:
    logs = Path(params["storage"]).glob("work/finetune/*/progress.jsonl")
    return max((len(log.read_text().splitlines()) for log in logs), default=0)


def finished(params) -> list[Path]:
    return list(Path(params["storage"]).glob("checkpoints/*/training_log.jsonl"))


def train_past(server, run: str, params, step: int) -> None:
    def there() -> bool:
        state = server.flow_run(run)["state"]
        if state["type"] == "COMPLETED":
            raise EndedTooSoon(f"{run} before step {step}")
        assert state["type"] in ("SCHEDULED", "PENDING", "RUNNING"), state
        return steps_done(params) >= step

    wait_until(there, f"step {step}")


def require_end(server, run: str, expected: str) -> None:
    """Wait for the run's end in that state; EndedTooSoon where it was completed before it could be stopped."""
    state = wait_until(
        lambda: (found := server.flow_run(run)["state"]["type"]) not in ("RUNNING", "CANCELLING") and found, expected
    )
    if state == "COMPLETED":
        raise EndedTooSoon(f"{run} before it was {expected}")
    assert state == expected


def log_of(server, run: str) -> str:
    found = server.post("logs/filter", logs={"flow_run_id": {"any_": [run]}}, limit=200)
    return "\n".join(line["message"] for line in found)


def test_cancelled_then_killed_then_without_a_server_the_same_training_ends(
    prefect_server, served, tokenizer, tmp_path_factory
) -> None:
    def attempt(amount: int) -> None:
        params = params_of(tmp_path_factory.mktemp("resilience"), tokenizer, steps=160 * amount)
        cancel_kill_and_leave_alone(prefect_server, served[0], params)

    interrupted(attempt)


def cancel_kill_and_leave_alone(prefect_server, process, params) -> None:
    steps = params["training"]["steps"]
    run = trigger(prefect_server, params)
    train_past(prefect_server, run, params, 7)
    training = below(process)
    if not any("RayTrainWorker" in " ".join(words_of(child)) for child in training):
        raise EndedTooSoon("training, before it was cancelled")
    prefect_server.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    on_ray = [child for child in training if parent_of(child) != process.pid]
    wait_until(lambda: not alive(on_ray), "all of Ray has ended")
    require_end(prefect_server, run, "CANCELLED")
    reached = steps_done(params)
    assert reached < steps

    run = trigger(prefect_server, params)
    train_past(prefect_server, run, params, reached + 5)
    training = below(process)
    idle = [child for child in training if words_of(child)[0].startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))]
    flows = [child for child in training if parent_of(child) == process.pid]
    if not flows:
        raise EndedTooSoon("the flow, before it was killed")
    (flow,) = flows
    flow.kill()
    wait_until(lambda: not [child for child in alive(training) if child not in idle], "the run's processes have ended")
    require_end(prefect_server, run, "CRASHED")
    log = log_of(prefect_server, run)
    assert "ingest: found" in log
    assert "prepare: found" in log
    reached = steps_done(params)

    run = trigger(prefect_server, params)
    train_past(prefect_server, run, params, reached + 2)
    prefect_server.kill()
    here = steps_done(params)
    try:
        if here > steps - 40:
            raise EndedTooSoon("training, before its server was killed")
        wait_until(lambda: steps_done(params) >= here + 40 or finished(params), "training goes on without a server")
    finally:
        prefect_server.start()
    wait_until(lambda: (state := prefect_server.flow_run(run)["state"]["type"]) != "RUNNING" and state, "the run ends")
    assert prefect_server.flow_run(run)["state"]["type"] == "COMPLETED"
    wait_until(lambda: "finetune: made in" in log_of(prefect_server, run), "the last lines")  # they are sent in batches
    assert prefect_server.artifacts_of(run)["finetune-summary"]["type"] == "table"
    (training_log,) = finished(params)
    assert len(training_log.read_text().splitlines()) == steps
