"""FSDP2: weights, gradients and optimizer states cut over the workers, whole only while a layer needs them.

Each decoder layer is one group; embeddings, final norm and output layer, tied or not, form the outermost one. LoRA, norms and
embeddings are float32 and the frozen base may be bfloat16 in the same group.
"""

from __future__ import annotations

from typing import Any

import torch

from ray_jobs.finetune.objective import Objective
from ray_jobs.finetune.world import Worker


def shard(objective: Objective, worker: Worker) -> None:
    """Cut the objective's model over all workers, in place. A process group must exist."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(worker.device.type, (worker.world_size,))
    for layer in decoder_layers(objective):
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            # The loss is already divided by the tokens of all ranks, so gradients are summed; gloo knows no other sum.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def reshard(objective: Objective) -> None:
    """Cut the outermost group again, which a pass without a backward pass leaves whole; nothing to do without FSDP."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(objective, FSDPModule):
        objective.reshard()


def decoder_layers(objective: Objective) -> list[torch.nn.Module]:
    """The layers that transformers itself says are not to be split."""
    base: Any = objective.model.get_base_model()
    names = set(base._no_split_modules or ())
    return [module for module in base.modules() if type(module).__name__ in names]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor on every rank; all ranks must ask for it. A tensor that is not cut is returned as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(full: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """`full`, the same on all ranks, cut and placed as `example` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(example, DTensor):
        return full.to(example.device)
    return distribute_tensor(full.to(example.device), example.device_mesh, example.placements, src_data_rank=None)
