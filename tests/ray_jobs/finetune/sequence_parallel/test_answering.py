"""Two real processes share a row: one hangs or is killed, and the other says so in time."""

import json
import os
import signal
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ray_jobs.finetune.segments import Segments
from ray_jobs.finetune.sequence_parallel.answering import WorkerLostError
from ray_jobs.finetune.sequence_parallel.exchange import Exchange
from ray_jobs.finetune.sequence_parallel.halo import pieces
from ray_jobs.finetune.training.row_parts import sequence_link
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


@pytest.mark.slow
def test_a_worker_that_hangs_or_is_killed_is_missed_in_time(tmp_path: Any) -> None:
    processes = [mp.get_context("spawn").Process(target=one_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HANGS_AFTER_S)
    assert processes[1].exitcode == -signal.SIGKILL
    found = json.loads((tmp_path / "found.json").read_text())
    hangs, killed = found["hangs"], found["is killed"]
    assert "worker 0 exchanges a row with 1: it was lost, or took longer than 1 s; this step is made again" in hangs
    assert "worker 0 exchanges a row with 1: it was lost" in killed
