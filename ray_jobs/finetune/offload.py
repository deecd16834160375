"""Activations between layers in the CPU's memory.

With gradient checkpointing, what stays alive from forward to backward pass is each layer's input: layers x tokens x width.
At 64k tokens, width 4096 and 32 layers in bfloat16 that is 17 GB, which need not stand on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from data_schemas.errors import UserError


def offload_layer_inputs(model: torch.nn.Module, *, pin_memory: bool) -> None:
    """Let every checkpointed layer of a transformers model keep its input on the CPU. UserError without checkpointing."""

    def offloaded(layer: Callable[..., Any], *inputs: Any) -> Any:
        # Only what `checkpoint` itself saves, the inputs, meets this context: inside, its own hooks come first.
        with save_on_cpu(pin_memory=pin_memory):
            return checkpoint(layer, *inputs, use_reentrant=False)

    checkpointed: list[Any] = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    if not checkpointed:
        raise UserError(
            "training.activation_offload moves the inputs of recomputed layers: set training.gradient_checkpointing too."
        )
    for module in checkpointed:
        module._gradient_checkpointing_func = offloaded
