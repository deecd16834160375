"""Memory that runs out is one sentence with a remedy, wherever the allocation fails, and what was finished stays."""

import argparse
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ray.exceptions import RayTaskError

from data_schemas.errors import UserError, as_user_error, is_out_of_memory
from data_schemas.params import RayParams
from data_schemas.parts import Parts
from ray_jobs import actors
from ray_jobs.actors import measuring_workers
from ray_jobs.command import run_command
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.finetune.sequence_parallel.answering import WorkerLostError
from tasks.work import local_workers, run_units

TOO_MUCH = 2**60  # bytes, which no machine has


def raised_by(allocate: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        allocate()
    return caught.value


REAL = {
    "torch": raised_by(lambda: torch.empty(TOO_MUCH, dtype=torch.uint8)),
    "python": raised_by(lambda: bytearray(TOO_MUCH)),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}
OTHER = {
    "user": UserError("it is out of memory: no"),
    "runtime": RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    "value": ValueError("out of memory in a text of the user"),
}


def allocate_at_three(unit: int) -> int:
    return len(bytearray(TOO_MUCH)) if unit == 3 else unit


def allocate_in_torch_at_three(unit: int) -> int:
    return torch.empty(TOO_MUCH, dtype=torch.uint8).numel() if unit == 3 else unit


def test_failed_allocations_are_told_apart_from_other_errors() -> None:
    assert [name for name, error in REAL.items() if not is_out_of_memory(error)] == []
    assert [name for name, error in OTHER.items() if is_out_of_memory(error)] == []
    wrapped = ValueError("a library's own")
    wrapped.__cause__ = REAL["torch"]
    assert is_out_of_memory(wrapped)
    assert "what is finished is kept" in str(as_user_error(REAL["python"]))
    assert as_user_error(OTHER["runtime"]) is None


@pytest.mark.parametrize("function", [allocate_at_three, allocate_in_torch_at_three])
def test_one_local_worker_says_it_with_the_stages_remedy_and_finished_units_stay(
    tmp_path: Path, function: Callable[[int], int]
) -> None:
    parts = Parts(str(tmp_path))
    with (
        measuring_workers(RayParams(), "lower model.target_length") as workers,
        pytest.raises(
            UserError, match=r"^A worker ran out of memory: lower model\.target_length and run again; finished units"
        ),
    ):
        list(run_units(workers, function, range(5), parts, "unit"))
    assert [parts.has(f"unit-0000{number}.json") for number in range(4)] == [True, True, True, False]


def test_processes_of_the_data_stage_say_it_too() -> None:
    with local_workers(2) as workers, pytest.raises(UserError, match=r"out of memory: lower ray\.data_workers"):
        list(workers.map(allocate_at_three, range(5)))


@pytest.mark.parametrize("name", list(REAL))
def test_an_actor_and_a_training_worker_say_it(name: str) -> None:
    of_ray = RayTaskError("run", "Traceback ...", REAL[name])
    told = actors._told(of_ray, "lower ray.num_workers")
    assert type(told) is UserError
    assert "out of memory: lower ray.num_workers" in str(told)
    trained = checkpoint_stage._told([WorkerLostError("the other one"), REAL[name]])
    assert "lower training.micro_batch_rows" in str(trained)


def test_other_errors_of_workers_stay_what_they_are() -> None:
    of_ray = RayTaskError("run", "Traceback ...", OTHER["runtime"])
    assert actors._told(of_ray, "") is of_ray
    assert checkpoint_stage._told([OTHER["runtime"]]) is None
    assert checkpoint_stage._told([REAL["cuda"], OTHER["user"]]) is OTHER["user"]
    assert "did not answer" in str(checkpoint_stage._told([WorkerLostError("x")]))


def test_a_job_ends_with_the_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"run_name": "r", "storage": str(tmp_path), "corpus": {"sources": ["x"]}}
    params = json.dumps(given | {"model": {"base": "demo", "target_length": 2048}})
    outcome = tmp_path / "outcome.json"
    arguments = argparse.Namespace(params=params, given=[], outcome=str(outcome), progress="text", takes=())

    def stage(*_: object) -> None:
        raise REAL["torch"]

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            run_command(arguments, stage)  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 2
    assert "error: Memory ran out: lower" in capsys.readouterr().err
    assert "Memory ran out" in outcome.read_text()
