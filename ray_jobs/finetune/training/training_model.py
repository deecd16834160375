"""The model in training: the base with scaled RoPE, S2-Attn, LoRA, trainable norms and embeddings, and offloaded activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from data_schemas.params import PipelineParams
from ray_jobs.finetune.attention import S2_ATTENTION, register_s2_attention
from ray_jobs.finetune.hybrids import keep_documents_apart
from ray_jobs.finetune.training.fast_layers import compile_layers, keep_first_layers, keep_hidden_states_in_bf16
from ray_jobs.finetune.training.fused_norms import fuse_norms
from ray_jobs.finetune.training.kept_attention import checkpoint_options, keeps_attention
from ray_jobs.finetune.training.lora import add_trainable_weights
from ray_jobs.finetune.training.objective import group_size_at, set_group_size
from ray_jobs.finetune.training.offloading import offload_layer_inputs
from ray_jobs.finetune.training.row_rotation import add_short_rotation
from ray_jobs.finetune.training.tiled_mlp import tile_mlps
from tasks.model.base_model import load_base
from tasks.model.extended import extended_config, rope_plan_for
from tasks.model.float8 import refuse_missing_units
from tasks.model.quantised_linear import quantise_linears
from tasks.model.quiet import quiet_transformers

if TYPE_CHECKING:
    from peft import PeftModel


def build_model(params: PipelineParams, device: torch.device, *, place: bool = True) -> PeftModel:
    """The extended base with trainable weights and training attention, on `device`; the same on every rank.

    With `place=False` it stays in the CPU's memory. UserError for fp8 on a GPU without 8-bit units.
    """
    training = params.training
    if training.base_precision == "fp8":
        refuse_missing_units(device)
    register_s2_attention()
    config = extended_config(params.model, as_served=True)  # one list for all lengths; rows get their own
    config.s2_executor = training.s2_executor
    torch.manual_seed(training.seed)
    dtype = "auto" if training.precision == "bf16" and device.type == "cuda" else torch.float32
    base = load_base(params.model, config=config, dtype=dtype, attention=S2_ATTENTION)
    if training.base_precision != "full":
        quantise_linears(base, training.base_precision, device)
    model = _in_training(base, params, keep_attention=keeps_attention(params, device))
    if training.norm_kernel == "liger":
        fuse_norms(model)
    return model.to(device) if place else model


def build_model_without_weights(params: PipelineParams) -> PeftModel:
    """As `build_model` makes it, of meta tensors with the types that training has. Nothing is loaded."""
    from transformers import AutoModelForCausalLM

    register_s2_attention()
    config = extended_config(params.model, as_served=True)  # one list for all lengths; rows get their own
    config.s2_executor = params.training.s2_executor
    on_gpu = params.training.precision == "bf16" and params.ray.use_gpu
    dtype = (config.dtype if on_gpu else None) or torch.float32
    with torch.device("meta"), quiet_transformers():
        base = AutoModelForCausalLM.from_config(config, attn_implementation=S2_ATTENTION, dtype=dtype)
        if params.training.base_precision != "full":
            quantise_linears(base, params.training.base_precision, torch.device("meta"))
        keep = params.training.attention_outputs == "kept"  # `plan` puts this in place of auto, by the worker's memory
        return _in_training(base, params, keep_attention=keep)


def _in_training(base: Any, params: PipelineParams, *, keep_attention: bool) -> PeftModel:
    """With recomputed and offloaded layers as asked for, documents apart in all layers, and trainable weights."""
    training = params.training
    keep_documents_apart(base)
    if training.gradient_checkpointing:
        base.activation_checkpointing_enable(activation_checkpointing_kwargs=checkpoint_options(keep_attention))
    if training.kept_layers and training.gradient_checkpointing:
        keep_first_layers(base, training.kept_layers)
    if training.activation_offload:
        offload_layer_inputs(base)
    plan = rope_plan_for(params.model)
    if training.short_window_share and plan.has_short_rotation:
        add_short_rotation(base, plan)
    model = add_trainable_weights(base, training)
    if training.mlp_tile_tokens is not None:
        tile_mlps(base, training.mlp_tile_tokens)
    if training.hidden_states == "bf16" and training.precision == "bf16":
        keep_hidden_states_in_bf16(model)
    if training.compile_layers:
        compile_layers(model)
    set_group_size(model, group_size_at(0, params))
    return model
