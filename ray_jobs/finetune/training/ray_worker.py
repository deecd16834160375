"""What each Ray Train worker runs: the plain loop, connected to Ray's ranks, checkpoints, reports and preemption notices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.storage import write_atomically

REFUSAL = "refused.txt"  # a worker's UserError, which no restart by Ray can fix


def train_on_worker(config: dict[str, Any]) -> None:
    """Train with `config` = {"params", "shards", "work", "unlisted", "start", "rows_read"}.

    Starts from Ray's latest checkpoint, else from the checkpoint folder `unlisted`, whichever is complete, else from step 0; there with
    the adapter in the folder `start`, if there is one.
    """
    import ray.train
    import torch
    from ray.train.torch import get_device

    from ray_jobs.finetune.training.checkpoint import first_complete
    from ray_jobs.finetune.training.distributed import Worker
    from ray_jobs.finetune.training.loop import train
    from ray_jobs.finetune.training.row_parts import sequence_link
    from ray_jobs.finetune.training.training_log import TrainingLog
    from tasks.pack.reading import open_rows

    work = Path(config["work"])
    if (work / REFUSAL).exists():
        return
    params = PipelineParams.model_validate(config["params"])
    shards = Path(config["shards"])
    if not shards.is_dir():  # a node that joined after the driver had checked all nodes
        raise UserError(f"The node {ray.util.get_node_ip_address()} does not see {shards}: mount the storage on all nodes.")
    context = ray.train.get_context()
    if not params.ray.use_gpu:
        torch.set_num_threads(max(1, int(params.ray.cpus_per_worker)))
    rank, world_size = context.get_world_rank(), context.get_world_size()
    link = sequence_link(rank, world_size, params.ray.sequence_workers, params.ray.exchange_timeout_s)
    worker = Worker(rank, world_size, get_device(), link)
    checkpoint = ray.train.get_checkpoint()
    unlisted = Path(config["unlisted"]) if config["unlisted"] else None
    resume_from = first_complete(Path(checkpoint.path) if checkpoint else None, unlisted)
    first_step = json.loads((resume_from / "cursor.json").read_text())["step"] if resume_from else 0
    scratch = work / "scratch"
    log = None
    if worker.rank == 0:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        log = TrainingLog(work, first_step, params.training.steps)
    of_ray = RayLink(params, log)
    rows, heldout = open_rows(shards), open_rows(shards / "heldout")
    start = Path(config["start"]) if config["start"] else None
    try:
        train(params, rows, heldout, worker, of_ray.report, resume_from, scratch, of_ray.save_now, start, config["rows_read"])
    except UserError as error:
        write_atomically(work / REFUSAL, str(error))
        raise
    finally:
        if log is not None:
            log.close()


class RayLink:
    """Reports steps and checkpoints to Ray, and asks it after each step whether a node will be preempted."""

    def __init__(self, params: PipelineParams, log: Any) -> None:
        self._training, self._log = params.training, log
        self._noticed: tuple[str, ...] = ()
        self._due = False

    def save_now(self) -> bool:
        """Whether Ray announces another node that will be preempted. All ranks must ask equally often and get the same answer."""
        import ray.train

        notice = ray.train.get_preemption_info()
        nodes = tuple(notice.preempted_node_ids) if notice is not None else ()
        self._due = bool(set(nodes) - set(self._noticed))
        self._noticed = nodes
        return self._due

    def report(self, metrics: dict[str, Any], directory: Path | None) -> None:
        """Log the step; if a checkpoint is due, report it to Ray on all ranks."""
        import ray.train

        if self._log is not None:
            self._log.append(metrics)
        if not self._due and metrics["step"] % self._training.checkpoint_every and metrics["step"] != self._training.steps:
            return
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory) if directory else None)
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
