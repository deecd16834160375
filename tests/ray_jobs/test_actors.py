"""Ray actors of this machine: order, errors, real deaths, and the same evaluation as without them."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import RayParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.actors import RayActors, measuring_workers
from ray_jobs.cluster import connected
from ray_jobs.search_rope import search_stage
from tasks.rope_search.plans import load_result
from tasks.work import InProcess
from tests.ray_jobs.evaluate.deadly_units import Square
from tests.ray_jobs.evaluate.evaluation_example import TinyRun, make_tiny_run, write_questions
from tests.ray_jobs.search_rope.search_example import documents_of, search_params, write_base
from tests.waiting import EndedTooSoon, interrupted

TWO = RayParams(num_workers=2)


@pytest.fixture(scope="module", autouse=True)
def cluster(servers: None) -> Iterator[None]:
    with connected(TWO):
        yield


@pytest.fixture
def actors() -> Iterator[RayActors]:
    workers = RayActors(TWO)
    yield workers
    workers.close()


def test_results_come_in_the_order_of_the_units_from_two_processes(actors: RayActors, tmp_path: Path) -> None:
    found = list(actors.map(Square(str(tmp_path)), range(12)))
    assert [square for square, _ in found] == [n * n for n in range(12)]
    assert len({pid for _, pid in found} - {os.getpid()}) == 2


def test_a_units_error_reaches_the_user_as_it_was_said(actors: RayActors, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^thirteen cannot be squared: take another number$"):
        list(actors.map(Square(str(tmp_path)), [1, 13, 2]))
    assert [square for square, _ in actors.map(Square(str(tmp_path)), [3])] == [9], "and the workers go on"


def test_a_killed_worker_is_replaced_twice_and_then_it_is_an_error(actors: RayActors, tmp_path: Path) -> None:
    assert [square for square, _ in actors.map(Square(str(tmp_path), dies=4, times=2), range(6))] == [0, 1, 4, 9, 16, 25]
    with pytest.raises(UserError, match="killed 3 times on the same unit"):
        list(actors.map(Square(str(tmp_path / "more"), dies=1, times=9), range(3)))


def test_one_local_worker_is_this_process() -> None:
    with measuring_workers(RayParams()) as workers:
        assert isinstance(workers, InProcess)
    with (
        pytest.raises(UserError, match=r"with 2 workers, but this machine has 0 visible GPU"),
        measuring_workers(RayParams(num_workers=2, use_gpu=True)),
    ):
        pass


def test_a_search_for_rope_factors_on_two_workers_finds_the_same_to_the_last_bit(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write_base(tmp_path / "base", tokenizer)
    params = search_params(tmp_path, evaluations=20)
    found = {}
    for num_workers in (1, 2):
        storage = Storage(str(tmp_path / f"storage-{num_workers}"))
        spread = params.model_copy(update={"ray": params.ray.model_copy(update={"num_workers": num_workers})})
        found[num_workers] = load_result(search_stage.run(spread, storage, documents_of(storage), lambda event: None))
    assert found[1] == found[2]


def test_two_workers_of_which_one_is_killed_give_the_same_bytes_as_none(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    tiny_run = make_tiny_run(tmp_path, tokenizer)
    tiny_run.params = tiny_run.changed(qa_file=write_questions(tmp_path), reorder_samples=4)
    spread, evaluation = interrupted(lambda amount: evaluated_by_two_of_which_one_dies(tiny_run, tmp_path, amount))
    spread.storage = Storage(str(tmp_path / "alone"))
    assert evaluation.manifest == spread.evaluate().manifest, "digest and the hash of every file"


def evaluated_by_two_of_which_one_dies(tiny_run: TinyRun, folder: Path, amount: int) -> tuple[TinyRun, Artifact]:
    """EndedTooSoon where no worker was caught measuring, which more samples make likelier."""
    spread = tiny_run.elsewhere(folder / str(amount))
    spread.params = tiny_run.changed(num_samples=2 * amount)
    killed: list[int] = []
    over = threading.Event()

    def kill_a_worker() -> None:
        while not killed and not over.wait(0.002):
            if any(spread.parts.glob("*/measured-*.json")):
                for pid in own_actors()[:1]:  # none between two units, so look again
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    try:
        evaluation = spread.evaluate(ray={"num_workers": 2})
    finally:
        over.set()
        killer.join()
    if not killed:
        raise EndedTooSoon("the evaluation")
    return spread, evaluation


def own_actors() -> list[int]:
    """Actor processes below this one that are measuring: not those of other tests, which wait."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::_Actor.run") and os.getpid() in ancestors(int(folder.name)):
            found.append(int(folder.name))
    return found


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return
        yield pid
