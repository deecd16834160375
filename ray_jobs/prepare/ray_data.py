"""The workers of the data stage: Ray Data tasks, or processes of this machine."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from data_schemas.errors import UserError, is_out_of_memory, out_of_memory
from data_schemas.params import PipelineParams, RayParams
from data_schemas.storage import Storage
from ray_jobs.cluster import connected
from ray_jobs.shared_storage import refuse_unshared
from tasks.work import DATA_REMEDY, UnitFunction, Workers, become_worker, local_workers, worker_killed

_RETRIES = 2
_TASKS_A_WORKER = 8  # at least, so that all workers finish a step at about the same time
_UNITS_A_TASK = 8  # at most, because Ray Data reports the units of a task together
_WORTH_PROCESSES_BYTES = 32_000_000  # below it, a second process costs more time than it saves


class RayData:
    """Units as Ray Data tasks, each with one CPU.

    A task has several units, because a worker of Ray Data waits 0.1 s between tasks. When a task runs again after its worker died,
    its finished units do not run again (`tasks.work.Resumable`). They are tasks and not actors, because Ray keeps a task's process for
    the next task, so libraries and tokenizers are loaded once for the whole stage. Ray Data returns results in any order; here they
    get the order of the units again.
    """

    def __init__(self, num_workers: int, on_other_machines: bool) -> None:
        self._num_workers = num_workers
        self.on_other_machines = on_other_machines

    def map(self, function: UnitFunction, units: Sequence[Any]) -> Iterator[Any]:
        if not units:
            return
        import ray
        from ray.data import TaskPoolStrategy

        _quiet()
        num_tasks = min(len(units), max(_TASKS_A_WORKER * self._num_workers, len(units) // _UNITS_A_TASK))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the only way to limit retries is deprecated and goes in Ray 2.64
            dataset = ray.data.from_blocks(_numbers_of_tasks(len(units), num_tasks)).map_batches(
                _run_units,  # type: ignore[arg-type]
                fn_args=(function, ray.put(list(units))),
                batch_size=None,
                batch_format="numpy",
                compute=TaskPoolStrategy(size=min(self._num_workers, num_tasks)),
                num_cpus=1,
                ray_remote_args_fn=lambda: {"max_retries": _RETRIES},  # without it, forever
            )
        waiting: dict[int, Any] = {}
        next_number = 0
        try:
            for row in dataset.iter_rows():
                waiting[int(row["number"])] = row["result"]
                while next_number in waiting:
                    yield json.loads(waiting.pop(next_number))
                    next_number += 1
        except ray.exceptions.RayError as error:
            if told := _user_error(error):
                raise told from error
            raise
        if next_number != len(units):
            raise RuntimeError(f"Ray Data returned {next_number} of {len(units)} units")


def _numbers_of_tasks(num_units: int, num_tasks: int) -> list[pa.Table]:
    """The numbers of the units, one table a task."""
    return [pa.table({"id": numbers}) for numbers in np.array_split(np.arange(num_units), num_tasks)]


def _run_units(batch: dict[str, Any], function: UnitFunction, units: Any) -> dict[str, Any]:
    """On a worker: run the units whose numbers are in `batch`; results as JSON."""
    import ray

    become_worker()
    all_units = ray.get(units) if isinstance(units, ray.ObjectRef) else units
    numbers = [int(number) for number in batch["id"]]
    return {"number": numbers, "result": [json.dumps(function(all_units[number])) for number in numbers]}


def _user_error(error: BaseException | None) -> UserError | None:
    """The UserError inside Ray's exceptions: a worker's own, or one for a worker that died. None for any other error."""
    from ray.exceptions import OutOfMemoryError, WorkerCrashedError

    while error is not None:
        if isinstance(error, WorkerCrashedError | OutOfMemoryError):
            return worker_killed()
        if isinstance(error, UserError):
            return UserError(str(error).splitlines()[-1].removeprefix("data_schemas.errors.UserError: "))
        if is_out_of_memory(error):
            return out_of_memory(DATA_REMEDY)
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _quiet() -> None:
    import logging

    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False


@contextmanager
def ray_workers(params: RayParams) -> Iterator[Workers]:
    """Ray Data on the cluster at `params.address`, or on a private one on this machine."""
    with connected(params):
        import ray

        num_workers = params.data_workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield RayData(num_workers, on_other_machines=params.address != "local")


@contextmanager
def workers_for(params: PipelineParams, num_bytes: int) -> Iterator[Workers]:
    """Ray Data if `ray.address` names a cluster; else processes of this machine, or only this process for a small corpus."""
    if params.ray.address != "local":
        with ray_workers(params.ray) as workers:
            refuse_unshared(params, Storage(params.storage), parts_only=True)
            yield workers
        return
    automatic = (os.cpu_count() or 1) if num_bytes >= _WORTH_PROCESSES_BYTES else 1
    with local_workers(params.ray.data_workers or automatic) as workers:
        yield workers
