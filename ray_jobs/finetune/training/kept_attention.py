"""Recomputed layers whose attention is not recomputed: the kernel's output is kept, and all else is computed again.

Attention's share of a layer grows with the length, and its output is as small as the layer's input. A layer that is recomputed
computes attention's forward pass twice, which is 2 of 9 parts of its work (2 matrix products forward, 5 backward). Kept outputs save one
of the two; the results are the same, which was tried to the last bit on a CPU. A base with dropout in attention is recomputed, see
`attention_dropout`. Selective activation checkpointing: Korthikanti et al. 2022, arXiv 2205.05198, section 5, which recomputes what is
large and cheap.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from data_schemas.devices import memory_bytes
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.memory import keeping_attention_fits
from ray_jobs.finetune.planning.shape import TrainingShape, training_shape

# Forward passes of attention that have one kernel, by name; soft-capped scores are computed in blocks and recomputed.
_KERNELS = (
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn",
    "flash_attn::_flash_attn_varlen_forward",
    "flash_attn_3::_flash_attn_forward",
)


def keeps_attention(params: PipelineParams, device: torch.device) -> bool:
    """What `training.attention_outputs` means on this worker. Workers may differ: the results do not."""
    training = params.training
    if not training.gradient_checkpointing or training.attention_outputs != "auto":
        return training.attention_outputs == "kept"
    try:
        shape = training_shape(params)
    except UserError:  # a model whose memory cannot be predicted
        return False
    return keeps_attention_within(params, shape, _memory(params, device))


def keeps_attention_within(params: PipelineParams, shape: TrainingShape, available_bytes: float) -> bool:
    """Whether auto keeps the outputs on a worker of so much memory."""
    training = params.training
    if not training.gradient_checkpointing or training.activation_offload or training.compile_layers or shape.attention_dropout:
        return False
    if params.ray.sequence_workers > 1:
        return False
    tokens = training.micro_batch_rows * params.row_tokens
    return keeping_attention_fits(shape, training, tokens, available_bytes, params.ray.num_workers, params.ray.use_gpu)


def _memory(params: PipelineParams, device: torch.device) -> float:
    """Bytes of this worker: its GPU's, or its part of this machine's."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return memory_bytes() / params.ray.num_workers


def checkpoint_options(keep_attention: bool) -> dict[str, Any]:
    """For `activation_checkpointing_enable` of a transformers model."""
    if not keep_attention:
        return {"use_reentrant": False}
    return {"use_reentrant": False, "context_fn": partial(create_selective_checkpoint_contexts, attention_kernels())}


def attention_kernels() -> list[Any]:
    """The kernels that this machine's libraries have."""
    found = []
    with suppress(ImportError):
        importlib.import_module("flash_attn")  # registers its kernel
    for name in _KERNELS:
        namespace, _, operation = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), operation, None)
        found += [packet.default] if packet is not None else []
    return found
