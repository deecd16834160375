"""Training in several processes: this process's rank, sums over all ranks, and weights sharded by FSDP2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from ray_jobs.finetune.sequence_parallel.answering import GROUP_LIMIT, answering
from ray_jobs.finetune.sequence_parallel.exchange import Link
from ray_jobs.finetune.training.fast_layers import layers_of
from ray_jobs.finetune.training.objective import Objective

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_BUCKET_NUMEL = 16 * 1024**2  # small tensors are summed together, in messages of at most this many values


@dataclass(frozen=True)
class Worker:
    """This process's rank and device, and the workers that share its rows, if rows are cut over several (`link`)."""

    rank: int
    world_size: int
    device: torch.device
    link: Link | None = None

    @property
    def num_readers(self) -> int:
        """How many rows are computed at a time: workers, or groups of workers that share a row."""
        return self.world_size // (self.link.num_workers if self.link else 1)

    @property
    def reader(self) -> int:
        """This worker's number, or its group's, among them."""
        return self.rank // (self.link.num_workers if self.link else 1)


def sum_over_ranks(tensors: list[torch.Tensor], worker: Worker) -> None:
    """Sum in place over all ranks, with few messages and without copies of large tensors."""
    if worker.world_size == 1:
        return
    bucket: list[torch.Tensor] = []
    for tensor in sorted(tensors, key=lambda t: str(t.dtype)):
        full = sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET_NUMEL
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            _sum_bucket(bucket, worker)
            bucket = []
        bucket.append(tensor)
    _sum_bucket(bucket, worker)


def _sum_bucket(tensors: list[torch.Tensor], worker: Worker) -> None:
    if len(tensors) == 1 and tensors[0].device == worker.device and tensors[0].is_contiguous():
        _all_reduce(tensors[0], worker)
        return
    flat = torch.cat([t.flatten().to(worker.device) for t in tensors])
    _all_reduce(flat, worker)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def _all_reduce(tensor: torch.Tensor, worker: Worker) -> None:
    with answering("all workers sum their gradients and losses", GROUP_LIMIT):
        dist.all_reduce(tensor, group=worker.link.everyone if worker.link else None)


def mesh_of(worker: Worker) -> DeviceMesh:
    """All workers in a line, with the limit of their link if rows are cut. A process group must exist."""
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

    if worker.link is not None and worker.link.everyone is not None:
        return DeviceMesh.from_group(worker.link.everyone, worker.device.type)
    return init_device_mesh(worker.device.type, (worker.world_size,))


def shard(objective: Objective, mesh: DeviceMesh) -> None:
    """Shard the objective's model over all workers, in place."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    for layer in decoder_layers(objective):
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            # The loss is already divided by the tokens of all ranks, so gradients are summed. Gloo cannot average.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def reshard(objective: Objective) -> None:
    """Shard the outermost group again, which a forward pass without a backward pass leaves whole. Does nothing without FSDP."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(objective, FSDPModule):
        objective.reshard()


def decoder_layers(objective: Objective) -> list[torch.nn.Module]:
    """The modules that transformers itself lists as not to be split."""
    return layers_of(objective.model)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor on every rank. All ranks must call it. A tensor that is not sharded is returned unchanged."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(full: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """`full`, which is the same on all ranks, sharded and placed like `example`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(example, DTensor):
        return full.to(example.device)
    return distribute_tensor(full.to(example.device), example.device_mesh, example.placements, src_data_rank=None)
