"""Where a model of transformers keeps its rotary frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_schemas.errors import UserError


def rotary_modules(model: Any, num_pairs: int) -> Sequence[Any]:
    """The modules of `model` that turn `num_pairs` pairs of channels. UserError where a model has none that can be swapped."""
    found = [m for m in model.modules() if hasattr(m, "attention_scaling") and getattr(m, "inv_freq", None) is not None]
    if not found or any(tuple(module.inv_freq.shape) != (num_pairs,) for module in found):
        raise UserError(
            f"{type(model).__name__} does not keep its rotary frequencies in one table of {num_pairs} that can be changed: choose "
            "another rope_method, such as yarn."
        )
    return found
