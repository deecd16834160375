"""Units give the same results, in order, on any number of workers, and finished ones survive a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.parts import Parts
from tasks.work import InProcess, local_workers, run_units
from tests.waiting import wait_until


@dataclass(frozen=True)
class Square:
    """Squares a number, counting its calls in `log`; the even ones take longer; `fatal` ends its process."""

    log: str
    fatal: int = -1

    def __call__(self, number: int) -> int:
        with open(self.log, "a") as log:
            log.write(f"{number}\n")
        if number == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if number % 2 == 0:
            time.sleep(0.02)
        return number**2


@dataclass(frozen=True)
class Refuse:
    def __call__(self, number: int) -> int:
        raise UserError(f"unit {number} cannot be read: mend it.")


def results(tmp_path: Path, num_workers: int) -> list[int]:
    with local_workers(num_workers) as workers:
        return list(run_units(workers, Square(str(tmp_path / "log")), range(12), Parts(str(tmp_path / "parts")), "square"))


@pytest.mark.parametrize("num_workers", [2, 3])
def test_any_number_of_workers_gives_the_same_results_in_order(tmp_path, num_workers):
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    assert results(tmp_path / "one", 1) == results(tmp_path / "many", num_workers)


def test_finished_units_are_not_done_again_after_a_kill(tmp_path):
    code = f"""
from data_schemas.parts import Parts
from tasks.work import InProcess, run_units
from tests.tasks.test_work import Square
list(run_units(InProcess(), Square({str(tmp_path / "log")!r}, fatal=5), range(12), Parts({str(tmp_path / "parts")!r}), "square"))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=os.getcwd()).returncode == -signal.SIGKILL
    results(tmp_path, 1)
    calls = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert sorted(calls) == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 11]
    assert json.loads((tmp_path / "parts" / "square-00003.json").read_text()) == 9


def test_a_killed_worker_process_is_a_sentence(tmp_path):
    with local_workers(2) as workers, pytest.raises(UserError, match=r"killed.*data_workers"):
        list(workers.map(Square(str(tmp_path / "log"), fatal=3), range(6)))


def test_a_killed_parent_leaves_no_process_behind(tmp_path):
    code = f"""
import os, signal, multiprocessing
from tasks.work import local_workers
from tests.tasks.test_work import Square
with local_workers(2) as workers:
    list(workers.map(Square({str(tmp_path / "log")!r}), range(4)))
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=os.getcwd(), stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in done.stdout.split()]
    assert len(children) == 2
    wait_until(lambda: not any(is_running(pid) for pid in children), "no process is left")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_units_refusal_comes_through(num_workers):
    with local_workers(num_workers) as workers, pytest.raises(UserError, match="unit 0 cannot be read"):
        list(workers.map(Refuse(), range(6)))


def test_units_are_taken_only_as_results_are(tmp_path):
    consumed = InProcess().map(Square(str(tmp_path / "log")), range(100))
    assert next(iter(consumed)) == 0
    assert (tmp_path / "log").read_text() == "0\n"
