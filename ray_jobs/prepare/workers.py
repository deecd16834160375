"""The workers of the data stage: Ray Data's, or this machine's own processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, RayParams
from ray_jobs.cluster import connected
from tasks.workers import UnitFunction, Workers, local_workers, one_thread

_WORTH_PROCESSES_BYTES = 32_000_000  # below it, starting a process costs more than a second CPU brings


class RayData:
    """Units on a pool of Ray Data actors, each with one CPU.

    A unit is one block, so that an actor that dies costs only the units it had. Ray Data hands results on in any order;
    they are put back in the units' order here.
    """

    def __init__(self, num_workers: int, on_other_machines: bool) -> None:
        self._num_workers = num_workers
        self.on_other_machines = on_other_machines

    def map(self, function: UnitFunction, units: Sequence[Any]) -> Iterator[Any]:
        if not units:
            return
        import ray
        from ray.data import ActorPoolStrategy

        _quiet()
        dataset = ray.data.range(len(units), override_num_blocks=len(units)).map_batches(
            _UnitRunner,
            fn_constructor_args=(function, ray.put(list(units))),
            batch_size=None,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=min(self._num_workers, len(units))),
            num_cpus=1,
        )
        waiting: dict[int, Any] = {}
        next_number = 0
        try:
            for row in dataset.iter_rows():
                waiting[int(row["number"])] = row["result"]
                while next_number in waiting:
                    yield _decoded(waiting.pop(next_number))
                    next_number += 1
        except ray.exceptions.RayError as error:
            raise _user_error(error) or error from None
        if next_number != len(units):
            raise RuntimeError(f"Ray Data returned {next_number} of {len(units)} units")


class _UnitRunner:
    def __init__(self, function: UnitFunction, units: Any) -> None:
        import ray

        one_thread()
        self._function = function
        self._units = ray.get(units) if isinstance(units, ray.ObjectRef) else units

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import json

        numbers = [int(number) for number in batch["id"]]
        return {"number": numbers, "result": [json.dumps(self._function(self._units[number])) for number in numbers]}


def _decoded(result: str) -> Any:
    import json

    return json.loads(result)


def _user_error(error: BaseException | None) -> UserError | None:
    """The UserError that a worker raised, from whatever Ray wrapped around it."""
    while error is not None:
        if isinstance(error, UserError):
            return UserError(str(error).splitlines()[-1].removeprefix("data_schemas.errors.UserError: "))
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
    """Ray Data on the cluster at `params.address`, or on a private one of this machine."""
    with connected(params):
        import ray

        num_workers = params.data_workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield RayData(num_workers, on_other_machines=params.address != "local")


@contextmanager
def workers_for(params: PipelineParams, num_bytes: int) -> Iterator[Workers]:
    """Ray Data where `ray.address` names a cluster; else this machine's processes, or this one alone for a small corpus."""
    if params.ray.address != "local":
        with ray_workers(params.ray) as workers:
            yield workers
        return
    automatic = (os.cpu_count() or 1) if num_bytes >= _WORTH_PROCESSES_BYTES else 1
    with local_workers(params.ray.data_workers or automatic) as workers:
        yield workers
