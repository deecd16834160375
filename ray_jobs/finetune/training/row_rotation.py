"""A rotation for each row: those of short documents turn with the frequencies that a served model has for short prompts.

The model itself is built with its long frequencies for every length (`tasks.model.as_served`). Beside each of its rotary modules
stands a twin with the short ones; a row's tokens take cosine and sine from one of the two.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from tasks.model.rope_plan import RopePlan
from tasks.model.rotary_modules import rotary_modules


@dataclass
class ShortTokens:
    """`mask` bool [1, T]: the tokens that turn with the short frequencies. `is_read`: whether a rotary module has asked for it."""

    mask: torch.Tensor
    is_read: bool = False


def mark_short(position_ids: torch.Tensor, mask: torch.Tensor) -> ShortTokens:
    """Mark `position_ids` [1, T], with which rotary modules find the mask of the same shape."""
    marked = ShortTokens(mask)
    position_ids._short_tokens = marked  # type: ignore[attr-defined]
    return marked


def add_short_rotation(model: Any, plan: RopePlan) -> None:
    """Let marked tokens turn with the frequencies and the factor that transformers computes for a prompt of at most
    `plan.short_length` tokens.

    UserError where the model's rotary modules are not known.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    served = copy.deepcopy(model.config)
    plan.apply(served)
    inv_freq, attention = ROPE_INIT_FUNCTIONS["longrope"](served, torch.device("cpu"), seq_len=plan.short_length)
    for module in rotary_modules(model, plan.rotary_dim // 2):
        twin = copy.deepcopy(module)
        twin.rope_type = "default"  # so that it does not choose by a batch's longest position
        if not twin.inv_freq.is_meta:
            twin.inv_freq.copy_(inv_freq.to(twin.inv_freq))
        twin.attention_scaling = attention
        module.forward = _by_token(module.forward, twin)
        module.short_twin = twin  # follows the model to its device


def _by_token(turn_long: Any, twin: Any) -> Any:
    def forward(states: torch.Tensor, position_ids: torch.Tensor, *more: Any, **named: Any) -> Any:
        long = turn_long(states, position_ids, *more, **named)
        marked = getattr(position_ids, "_short_tokens", None)
        if marked is None:
            return long
        marked.is_read = True
        short = twin(states, position_ids, *more, **named)
        mask = marked.mask[..., None]
        if isinstance(long, torch.Tensor):
            return torch.where(mask, short, long)
        return tuple(torch.where(mask, of_short, of_long) for of_short, of_long in zip(short, long, strict=True))

    return forward
