"""Dropout inside attention, which does not go with kept outputs of attention.

A layer that is computed again draws its random numbers again, in the same order. A kept kernel is not run again and draws none, so each
dropout after it would get another mask than in the forward pass, and the gradients would be wrong.
"""

from __future__ import annotations

from typing import Any

from data_schemas.errors import UserError
from data_schemas.training_params import TrainingParams

_NAMES = ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop")


def has_attention_dropout(config: Any) -> bool:
    """Whether a base of this configuration drops attention weights in training."""
    return _stated(config) is not None


def refuse_kept_outputs(config: Any, training: TrainingParams) -> None:
    """UserError for `training.attention_outputs` kept with a base that has dropout in attention."""
    if training.attention_outputs == "kept" and (stated := _stated(config)):
        raise UserError(
            f"training.attention_outputs kept does not work with this base, which has dropout in attention ({stated}): set it to "
            "auto or recomputed."
        )


def _stated(config: Any) -> str | None:
    return next((f"{name} {value:g}" for name in _NAMES if (value := getattr(config, name, None))), None)
