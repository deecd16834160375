"""The mean of the trained weights after each of a run's last steps (stochastic weight averaging, Izmailov et al. 2018,
arXiv 1803.05407).

mean_k = mean_{k-1} + (weight - mean_{k-1}) / k, where k counts those steps. k follows from the step, and the mean is a part of
every checkpoint, so a resumed run ends with the same bits. It is made from weights that all workers share, so it needs no exchange.
"""

from __future__ import annotations

import torch

from ray_jobs.finetune.training.lora import trainable


class WeightAverage:
    """The running mean, a float32 tensor beside each trained weight and sharded like it, once the last steps have begun."""

    def __init__(self, steps: int, last_steps: int) -> None:
        self._first = steps - last_steps  # steps that are done before the first that counts
        self.means: dict[str, torch.Tensor] = {}

    def update(self, model: torch.nn.Module, done: int) -> None:
        """Take in the weights after step `done`, counted from 1."""
        count = done - self._first
        if count < 1:
            return
        for name, weight in trainable(model):
            if count == 1:
                self.means[name] = weight.detach().clone()
            else:
                _local(self.means[name]).lerp_(_local(weight.detach()), 1.0 / count)

    def put_into(self, model: torch.nn.Module) -> None:
        """Replace the trained weights by their means."""
        for name, weight in trainable(model):
            _local(weight.detach()).copy_(_local(self.means[name]))


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This worker's part, which shares the tensor's storage."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
