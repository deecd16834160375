"""Layers without attention that carry a state from token to token: state-space, linear-attention and short convolution layers.

S2-Attn is for the attention layers of such hybrids. The other layers would carry their state across the borders of packed documents.
Their kernels differ in what they know about borders, so here each of them is run on one document after the other: exact for every
kernel, at the cost of a call for each document in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from data_schemas.errors import UserError
from ray_jobs.finetune.segments import documents_of_rows

_MARKS = ("A_log", "slope_rate")  # the decay of a state; Mamba and gated delta networks, lightning attention


class Borders:
    """Where the documents of the present forward pass begin and end; it stays until the next one, so that layers can be recomputed."""

    def __init__(self) -> None:
        self.rows: list[list[tuple[int, int]]] | None = None

    def read(self, module: torch.nn.Module, inputs: Any, options: dict[str, Any]) -> None:
        """A forward pre-hook of the model: the borders are where `position_ids` do not grow."""
        position_ids = options.get("position_ids")
        self.rows = None if position_ids is None else documents_of_rows(position_ids)


def keep_documents_apart(model: Any) -> int:
    """Run every layer of `model` that carries a state on one document at a time; returns how many layers that are.

    `model` is a causal language model of transformers, whose passes must name `position_ids` that restart at each document.
    """
    carriers = [module for module in model.modules() if carries_state(module)]
    if carriers:
        borders = Borders()
        backbone: torch.nn.Module = getattr(model, model.base_model_prefix, model)
        backbone.register_forward_pre_hook(borders.read, with_kwargs=True)
        for module in carriers:
            module.forward = partial(_by_document, module.forward, borders)
    return len(carriers)


def carries_state(module: torch.nn.Module) -> bool:
    """Whether it mixes tokens without attention: it has a decaying state, or a convolution over the tokens."""
    if hasattr(module, "is_causal"):
        return False
    has_state = any(hasattr(module, name) for name in _MARKS)
    return has_state or any(isinstance(child, torch.nn.Conv1d) for child in module.children())


def _by_document(forward: Callable[..., Any], borders: Borders, *inputs: Any, **options: Any) -> Any:
    """`forward` of each document of each row; every tensor [B, L, ...] among the inputs is cut."""
    hidden = inputs[0] if inputs else options["hidden_states"]
    batch, length = hidden.shape[:2]
    rows = borders.rows
    if rows is None or all(len(row) == 1 for row in rows):
        return forward(*inputs, **options)
    if any(row[-1][1] != length for row in rows):
        raise UserError(
            "A layer that carries a state was given a part of a row, in which the borders of documents are not known: train with one "
            "worker for a row."
        )
    rows = rows * batch if len(rows) == 1 else rows

    def cut(value: Any, row: int, start: int, end: int) -> Any:
        if not isinstance(value, torch.Tensor) or value.shape[:2] != (batch, length):
            return value
        return value[row : row + 1, start:end]

    outputs = []
    for number, documents in enumerate(rows):
        parts = []
        for start, end in documents:
            given = {name: cut(value, number, start, end) for name, value in options.items()}
            part = forward(*(cut(value, number, start, end) for value in inputs), **given)
            parts.append(part[0] if isinstance(part, tuple) else part)
        outputs.append(torch.cat(parts, dim=1))
    joined = torch.cat(outputs)
    return (joined, *part[1:]) if isinstance(part, tuple) else joined
