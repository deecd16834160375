"""Two real processes share a row: one hangs or is killed, and the other says so in time."""

import json
import os
import signal
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from data_schemas.errors import UserError
from ray_jobs.finetune.segments import Segments
from ray_jobs.finetune.sequence_parallel.answering import WorkerLostError, answering_among_others
from ray_jobs.finetune.sequence_parallel.exchange import Exchange
from ray_jobs.finetune.sequence_parallel.halo import pieces
from ray_jobs.finetune.training.distributed import Worker
from ray_jobs.finetune.training.loop import set_up
from ray_jobs.finetune.training.row_parts import sequence_link
from ray_jobs.finetune.training.steps import train_step, validate
from tests.ray_jobs.finetune.training_example import CPU, ROWS, make_params, write_base
from tests.waiting import HANGS_AFTER_S, wait_until

LIMIT_S = 1.0


def one_row(link: Any, dies_before_gradients: bool) -> None:
    """Keys and values of 8 tokens over two workers, in one segment of 16, forward and backward."""
    segments = Segments(torch.tensor([0, 16], dtype=torch.int32), (0, 16))
    call = Exchange(pieces([segments], (0, 8, 16)), [slice(0, 1)], 8 * link.index, link)
    tensors = [torch.ones(8, 1, 4, requires_grad=True) for _ in range(2)]
    key, value, token = call.start(*tensors)
    halos = call.finish(token)
    if dies_before_gradients and link.index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    sum((part.sum() for part in (key, value, *(side for pair in halos.values() for side in pair))), torch.zeros(())).backward()


def one_step(link: Any, folder: Any, case: str) -> None:
    """Validation or a step of weights sharded over two workers, whose first message is FSDP's; worker 1 is lost before it."""
    params = make_params(folder / "base", parallelism="fsdp")
    worker = Worker(link.index, 2, CPU, link)
    objective, optimizer = set_up(params, worker)
    if link.index == 1:
        if case == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        wait_until((folder / "missed").exists)
    elif case == "hangs":
        validate(objective, ROWS, params, worker)
    else:
        train_step(objective, optimizer, params, ROWS, [0, 1], 0, worker)


def one_of_two_sharded(rank: int, folder: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for case in ("hangs", "is killed"):
        link = sequence_link(rank, 2, 2, LIMIT_S if case == "hangs" else HANGS_AFTER_S)
        try:
            one_step(link, folder, case)
        except WorkerLostError as error:
            found[case] = str(error)
            (folder / "missed").touch()
    (folder / "found.json").write_text(json.dumps(found))
    os._exit(0)  # leaving the group would wait for the dead


def one_of_two(rank: int, folder: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for case in ("hangs", "is killed"):
        link = sequence_link(rank, 2, 2, LIMIT_S if case == "hangs" else HANGS_AFTER_S)
        if case == "hangs" and rank == 1:
            wait_until((folder / "missed").exists)  # it hangs until it is missed
            continue
        try:
            one_row(link, case == "is killed")
        except WorkerLostError as error:
            found[case] = str(error)
            (folder / "missed").touch()
    (folder / "found.json").write_text(json.dumps(found))
    os._exit(0)  # leaving the group would wait for the dead


def found_by_first(target: Any, folder: Any) -> dict[str, str]:
    """What the first of two processes found, of which the second ends by SIGKILL."""
    processes = [mp.get_context("spawn").Process(target=target, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HANGS_AFTER_S)
    assert processes[1].exitcode == -signal.SIGKILL
    found: dict[str, str] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.slow
def test_a_worker_is_missed_in_what_fsdp_sends(tmp_path: Any, tokenizer: Any) -> None:
    write_base(tmp_path / "base", tokenizer, tied=False)
    found = found_by_first(one_of_two_sharded, tmp_path)
    assert "not answer while all workers validate: it was lost, or took longer than the limit" in found["hangs"]
    assert "not answer while all workers compute a step: it was lost" in found["is killed"]


def test_an_error_of_another_kind_stays_what_it_is() -> None:
    told = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"
    sentence = r"while computing: it was lost, or took longer than 1 s.*Connection closed"
    with pytest.raises(WorkerLostError, match=sentence), answering_among_others("computing", "1 s"):
        raise RuntimeError(told)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("The size of tensor a must match"),
        UserError("x"),
    ):
        with pytest.raises(type(error)) as raised, answering_among_others("computing", "1 s"):
            raise error
        assert raised.value is error


@pytest.mark.slow
def test_a_worker_that_hangs_or_is_killed_is_missed_in_time(tmp_path: Any) -> None:
    found = found_by_first(one_of_two, tmp_path)
    hangs, killed = found["hangs"], found["is killed"]
    assert "worker 0 exchanges a row with 1: it was lost, or took longer than 1 s; this step is made again" in hangs
    assert "worker 0 exchanges a row with 1: it was lost" in killed
