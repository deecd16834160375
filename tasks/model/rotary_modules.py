"""Where a model of transformers keeps its rotary frequencies, and how it forgets those of earlier batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def forget_lengths(model: Any) -> None:
    """Make dynamic RoPE forget the batches before, so that the next one turns as in a fresh model.

    transformers keeps the frequencies of the longest batch while batches are not shorter than the base's window.
    """
    for module in getattr(model, "modules", tuple)():  # a model may be anything that computes logits
        kinds = getattr(module, "rope_type", None)
        by_prefix = {f"{layer}_": kind for layer, kind in kinds.items()} if isinstance(kinds, Mapping) else {"": kinds}
        for prefix, kind in by_prefix.items():
            if isinstance(kind, str) and "dynamic" in kind and hasattr(module, f"{prefix}original_inv_freq"):
                fresh = getattr(module, f"{prefix}original_inv_freq").to(getattr(module, f"{prefix}inv_freq").device)
                module.register_buffer(f"{prefix}inv_freq", fresh, persistent=False)
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
