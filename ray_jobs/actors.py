"""Workers that keep a model between units: this process, or Ray actors. For the evaluation and the search for RoPE factors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from data_schemas.errors import UserError, is_out_of_memory, out_of_memory
from data_schemas.params import RayParams
from ray_jobs.cluster import connected, interruptibly
from tasks.work import InProcess, UnitFunction, Workers, become_worker

_RETRIES = 2
_REMEDY = "lower evaluation.batch_tokens or ray.num_workers"
_UNITS_AHEAD = 4  # for each worker: limits the results that wait in memory behind a slow unit


class _Actor:
    """One worker process. The functions it runs keep what they load, such as a model, in the process."""

    def __init__(self, num_threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(num_threads)  # torch reads it when the first function imports it
        become_worker()

    def run(self, function: UnitFunction, unit: Any) -> Any:
        return function(unit)


class RayActors:
    """Runs units on `ray.num_workers` Ray actors, each with its CPUs or one GPU.

    Free actors get the units in order, so all actors work on neighbouring units and load each model once. An actor that dies is
    replaced and its unit is tried again, at most twice.
    """

    def __init__(self, params: RayParams, remedy: str = _REMEDY) -> None:
        self._params = params
        self._remedy = remedy
        self.on_other_machines = params.address != "local"
        self._actors: list[Any] = []

    def map(self, function: UnitFunction, units: Sequence[Any]) -> Iterator[Any]:
        """The results in the order of `units`. UserError if the function raises it, or if a unit's actors keep dying."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        sent = ray.put(function)
        waiting = list(range(len(units)))[::-1]
        under_way: dict[Any, tuple[Any, int]] = {}
        failures: dict[int, int] = {}
        results: dict[int, Any] = {}
        idle = self._take_actors(min(self._params.num_workers, len(units)))
        try:
            for number in range(len(units)):
                while number not in results:
                    self._hand_out(sent, units, waiting, idle, under_way, number)
                    done, _ = interruptibly(partial(ray.wait, list(under_way), num_returns=1))
                    actor, of_unit = under_way.pop(done[0])
                    try:
                        results[of_unit] = ray.get(done[0])
                        idle.append(actor)
                    except RayTaskError as error:
                        idle.append(actor)
                        raise _told(error, self._remedy) from error
                    except (RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError) as error:
                        failures[of_unit] = failures.get(of_unit, 0) + 1
                        self._drop(actor)
                        if failures[of_unit] > _RETRIES:
                            raise _killed(failures[of_unit], self._remedy) from error
                        waiting.append(of_unit)
                        idle.append(self._start())
                yield results.pop(number)
        finally:
            for actor, _ in under_way.values():  # after an error or an interrupt nobody waits for their results
                self._drop(actor)

    def _hand_out(
        self, sent: Any, units: Sequence[Any], waiting: list[int], idle: list[Any], under_way: dict[Any, Any], number: int
    ) -> None:
        """Give every idle actor the next unit, but none far ahead of unit `number`, whose result is awaited."""
        while idle and waiting and waiting[-1] <= number + _UNITS_AHEAD * self._params.num_workers:
            actor, unit = idle.pop(0), waiting.pop()
            under_way[actor.run.remote(sent, units[unit])] = (actor, unit)

    def _take_actors(self, count: int) -> list[Any]:
        while len(self._actors) < count:
            self._start()
        return list(self._actors[:count])

    def _start(self) -> Any:
        import ray

        gpus = {"num_gpus": 1} if self._params.use_gpu else {}
        threads = max(1, int(self._params.cpus_per_worker))
        actor_class = ray.remote(_Actor).options(num_cpus=self._params.cpus_per_worker, max_restarts=0, **gpus)
        actor = actor_class.remote(threads)
        self._actors.append(actor)
        return actor

    def _drop(self, actor: Any) -> None:
        import ray

        ray.kill(actor)
        self._actors.remove(actor)

    def close(self) -> None:
        for actor in list(self._actors):
            self._drop(actor)


def _told(error: Any, remedy: str) -> BaseException:
    """The UserError inside Ray's exception, or one for memory that ran out there, else Ray's exception."""
    inner = error.cause
    if type(inner) is UserError:
        return inner
    return out_of_memory(remedy) if is_out_of_memory(inner) else error


def _killed(times: int, remedy: str) -> UserError:
    return UserError(
        f"A worker was killed {times} times on the same unit, perhaps because memory ran out: {remedy} and run again; finished units are "
        "kept."
    )


@contextmanager
def measuring_workers(params: RayParams, remedy: str = _REMEDY) -> Iterator[Workers]:
    """This process for one local worker, else Ray actors on the cluster at `params.address`.

    Args:
        remedy: what a user can do where workers keep dying, for the error's sentence.

    Raises:
        UserError: the cluster cannot be reached, or has fewer GPUs than there are workers.
    """
    if params.address == "local" and params.num_workers == 1:
        yield InProcess(remedy)
        return
    with connected(params):
        _refuse_too_few_gpus(params)
        actors = RayActors(params, remedy)
        try:
            yield actors
        finally:
            actors.close()


def _refuse_too_few_gpus(params: RayParams) -> None:
    """A local cluster never grows, so actors that get no GPU would wait for ever."""
    import ray

    there = int(ray.cluster_resources().get("GPU", 0))
    if params.use_gpu and params.address == "local" and there < params.num_workers:
        raise UserError(
            f"ray.use_gpu is set with {params.num_workers} workers, but this machine has {there} visible GPU(s): lower ray.num_workers, "
            "or evaluate on a machine with more."
        )
