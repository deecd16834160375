"""This process's place among those that train together, and sums over all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

_BUCKET_NUMEL = 16 * 1024**2  # small tensors travel together in messages of at most so many values


@dataclass(frozen=True)
class Worker:
    """This process's place in the run."""

    rank: int
    world_size: int
    device: torch.device


def sum_over_ranks(tensors: list[torch.Tensor], worker: Worker) -> None:
    """Sum in place over all ranks, in few messages; a large tensor is not copied."""
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
        dist.all_reduce(tensors[0])
        return
    flat = torch.cat([t.flatten().to(worker.device) for t in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
