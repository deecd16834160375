"""The model as it is trained: the base with scaled RoPE, S2-Attn, LoRA and trainable norms and embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from data_schemas.params import PipelineParams
from ray_jobs.finetune.attention import S2_ATTENTION, register_s2_attention
from ray_jobs.finetune.base_model import load_base
from ray_jobs.finetune.extended import extended_config
from ray_jobs.finetune.lora import add_trainable_weights
from ray_jobs.finetune.objective import group_size_at, set_group_size
from ray_jobs.finetune.offload import offload_layer_inputs

if TYPE_CHECKING:
    from peft import PeftModel


def build_model(params: PipelineParams, device: torch.device, *, place: bool = True) -> PeftModel:
    """The extended base with trainable weights added, in training attention, for `device`; the same on every rank.

    Without `place` it stays in the CPU's memory.
    """
    training = params.training
    register_s2_attention()
    config = extended_config(params.model)
    config.s2_executor = training.s2_executor
    torch.manual_seed(training.seed)
    dtype = "auto" if training.precision == "bf16" and device.type == "cuda" else torch.float32
    base = load_base(params.model, config=config, dtype=dtype, attention=S2_ATTENTION)
    if training.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if training.activation_offload:
        offload_layer_inputs(base, pin_memory=device.type == "cuda")
    model = add_trainable_weights(base, training)
    if place:
        model = model.to(device)
    set_group_size(model, group_size_at(0, params))
    return model
