"""Which layers of a model S2-Attn can put into groups.

A layer with a sliding window shorter than a group computes that window in training too, and a layer with a state or a convolution
does not attend at all. Such layers gain nothing from full attention in training, so nothing chooses among them.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from data_schemas.params import PipelineParams
from ray_jobs.finetune.segments import default_group_size

WINDOW = "sliding_window"


def sparse_group_size(params: PipelineParams) -> int:
    """Tokens of a group in the steps with S2-Attn."""
    return params.training.s2_group_size or default_group_size(params.row_tokens)


def layers_in_groups(model: torch.nn.Module, group_size: int, num_layers: int) -> tuple[int, ...]:
    """Numbers from 0 of the layers that can attend in groups of `group_size` tokens; all where attention layers have no numbers.

    It reads modules alone: the model's weights may be without content.
    """
    return tuple(
        layer for layer, window in attention_windows(model, num_layers).items() if window is None or window >= group_size
    )


def base_layers_in_groups(params: PipelineParams) -> tuple[int, ...]:
    """Numbers of the base's layers that attend in groups in training, unless they are chosen to attend in full. No weight is loaded."""
    from transformers import AutoModelForCausalLM

    from tasks.model.base_model import load_config
    from tasks.model.quiet import quiet_transformers

    config = load_config(params.model)
    with torch.device("meta"), quiet_transformers():
        model = AutoModelForCausalLM.from_config(config)
    return layers_in_groups(model, sparse_group_size(params), config.get_text_config().num_hidden_layers)


def attention_windows(model: torch.nn.Module, num_layers: int) -> dict[int, int | None]:
    """By the number of each layer that attends, the tokens of its sliding window; None for a layer that sees its whole document."""
    attention = [module for module in model.modules() if hasattr(module, "is_causal")]
    if any(getattr(module, "layer_idx", None) is None for module in attention):
        return dict.fromkeys(range(num_layers))
    found: dict[int, int | None] = {}
    for module in attention:
        layer, window = int(module.layer_idx), _window_of(module)  # type: ignore[arg-type]
        other = found.get(layer, 0)
        found[layer] = None if window is None or other is None else max(window, other)
    return dict(sorted(found.items()))


def _window_of(module: Any) -> int | None:
    """The `sliding_window` that an attention module of transformers passes on: its own, or the configuration's (Mistral, Phi 3)."""
    if hasattr(module, WINDOW):
        window = module.sliding_window if getattr(module, "is_sliding", True) else None
    else:
        constants = inspect.unwrap(type(module).forward).__code__.co_consts
        window = getattr(module.config, WINDOW, None) if WINDOW in constants else None
    return int(window) if window is not None else None
