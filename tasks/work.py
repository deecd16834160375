"""Work in units: the same function on each unit, in this process, in several, or (ray_jobs.prepare) on Ray Data.

A unit's function writes its output as parts and returns a small JSON value. Results come in the order of the units, so
what is made of them does not depend on how many workers there are.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from data_schemas.errors import UserError, is_out_of_memory, out_of_memory
from data_schemas.parts import Parts

DATA_REMEDY = "lower ray.data_workers or corpus.max_document_megabytes"
_WORKER_MARK = "ROPEWAY_DATA_WORKER"

UnitFunction = Callable[[Any], Any]


class Workers(Protocol):
    """Something that runs a picklable function on units, here or on other machines."""

    on_other_machines: bool

    def map(self, function: UnitFunction, units: Sequence[Any]) -> Iterator[Any]:
        """The results in the order of `units`."""
        ...


WorkersFor = Callable[[int], AbstractContextManager[Workers]]  # the workers for a corpus of this many bytes


def worker_killed() -> UserError:
    return UserError(
        f"A worker process of the data stage was killed, perhaps because memory ran out: {DATA_REMEDY} and run again; finished parts are "
        "kept."
    )


class InProcess:
    """One unit after the other, in this process. `remedy`: what a user can do where memory runs out, for the error's sentence."""

    on_other_machines = False

    def __init__(self, remedy: str = DATA_REMEDY) -> None:
        self._remedy = remedy

    def map(self, function: UnitFunction, units: Sequence[Any]) -> Iterator[Any]:
        for unit in units:
            try:
                result = function(unit)
            except Exception as error:
                if is_out_of_memory(error):
                    raise out_of_memory(self._remedy) from error
                raise
            yield result


class Processes:
    """A pool of processes on this machine. No more than two units a process are under way at once."""

    on_other_machines = False

    def __init__(self, pool: ProcessPoolExecutor, num_workers: int) -> None:
        self._pool = pool
        self._num_workers = num_workers

    def map(self, function: UnitFunction, units: Sequence[Any]) -> Iterator[Any]:
        under_way: deque[Future[Any]] = deque()
        try:
            for unit in units:
                if len(under_way) >= 2 * self._num_workers:
                    yield under_way.popleft().result()
                under_way.append(self._pool.submit(function, unit))
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise worker_killed() from error
        except Exception as error:
            if is_out_of_memory(error):
                raise out_of_memory(DATA_REMEDY) from error
            raise
        finally:
            for future in under_way:
                future.cancel()


@contextmanager
def local_workers(num_workers: int) -> Iterator[Workers]:
    """This process alone for one worker, else a pool of fresh processes (a fork would copy other libraries' threads)."""
    if num_workers <= 1:
        yield InProcess()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=start_worker_process) as pool:
        try:
            yield Processes(pool, num_workers)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def become_worker() -> None:
    """Keep libraries in a worker from starting threads of their own: there are as many workers as CPUs."""
    os.environ[_WORKER_MARK] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def is_worker() -> bool:
    """Whether this process only runs units of the data stage."""
    return _WORKER_MARK in os.environ


def start_worker_process() -> None:
    """Run first in every process of a pool: limit libraries to one thread, and end when the parent ends."""
    become_worker()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its pool; without this its processes would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True)
class Resumable:
    """`function`, with its result kept among the parts as `<name>-<unit number>.json`, where a later run finds it.

    Units are (number, unit) pairs. The result is written after the unit's own parts, so it vouches for them.
    """

    function: UnitFunction
    parts: Parts
    name: str

    def __call__(self, numbered: tuple[int, Any]) -> Any:
        number, unit = numbered
        kept = f"{self.name}-{number:05d}.json"
        if self.parts.has(kept):
            return json.loads(self.parts.kept(kept).read_text())
        result = self.function(unit)
        with self.parts.writing(kept) as path:
            path.write_text(json.dumps(result))
        return result


def run_units(workers: Workers, function: UnitFunction, units: Sequence[Any], parts: Parts, name: str) -> Iterator[Any]:
    """`function` on every unit; the results in order, those of an interrupted run from its parts."""
    return workers.map(Resumable(function, parts, name), list(enumerate(units)))
