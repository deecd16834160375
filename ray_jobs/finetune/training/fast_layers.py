"""Layers that move fewer bytes on a GPU: hidden states in bfloat16 between them, and each layer compiled into few kernels.

Both are off by default: neither has run on a GPU yet. On a CPU their losses and gradients are compared with the plain layers'.
"""

from __future__ import annotations

from typing import Any

import torch

from data_schemas.errors import UserError


def keep_hidden_states_in_bf16(model: torch.nn.Module) -> None:
    """Round the outputs of the embedding and of every norm to bfloat16, in place; weights and their gradients stay float32.

    Trained float32 embeddings and norms otherwise widen the hidden states, and with them the residual stream, queries and keys:
    each projection then casts its input again. Sums inside a norm stay float32, as the model's own code has them.
    """
    embedding = _inner(model).get_input_embeddings()
    rounded = [embedding, *(module for module in model.modules() if "Norm" in type(module).__name__)]
    for module in rounded:
        module.register_forward_hook(lambda module, inputs, output: output.to(torch.bfloat16))


def compile_layers(model: torch.nn.Module, backend: str = "inductor") -> None:
    """Compile every decoder layer by torch.compile, in place, once for all lengths of rows.

    Attention itself is left out: its kernel is given the segments as a tensor, so another row's segments compile nothing anew.
    Recomputed layers are recomputed by the compiled code.
    """
    from transformers import AttentionInterface

    from ray_jobs.finetune.attention import S2_ATTENTION, s2_attention_forward

    AttentionInterface.register(S2_ATTENTION, torch.compiler.disable(s2_attention_forward))
    for layer in layers_of(model):
        layer.compile(backend=backend, dynamic=True)


def keep_first_layers(model: torch.nn.Module, count: int) -> None:
    """Keep the activations of the first `count` layers instead of recomputing them, in place. UserError if there are fewer."""
    layers = layers_of(model)
    if count > len(layers):
        raise UserError(
            f"training.kept_layers is {count}, but the model has {len(layers)} layers: choose at most {len(layers)}."
        )
    for layer in layers[:count]:
        layer.gradient_checkpointing = False


def layers_of(model: torch.nn.Module) -> list[Any]:
    """The decoder layers, in order: the modules that transformers lists as not to be split."""
    base = _inner(model)
    names = set(base._no_split_modules or ())
    return [module for module in base.modules() if type(module).__name__ in names]


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
