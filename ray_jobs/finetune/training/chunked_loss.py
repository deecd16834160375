"""Ropeway's own kernel of the loss: the logits of one chunk of tokens at a time, with or without a weight for each token.

A plain linear output layer gets its gradients in the same pass. One that computes more (with LoRA) recomputes the logits of a
chunk in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

IGNORED = -100

Weigh = Callable[[slice, torch.Tensor], torch.Tensor]
"""(places in the row, -log p of their targets [t], without gradients) -> the targets' weights [t], which get no gradient either."""


class LossSums(NamedTuple):
    """Sums over the targets that are not ignored. Only `weighted` has gradients; without weights it equals `plain`."""

    weighted: torch.Tensor
    plain: torch.Tensor
    weights: torch.Tensor


class LinearCrossEntropy(torch.autograd.Function):
    """`LossSums` and gradients in one pass over chunks of tokens: matrix products in `dtype`, sums in float32 or wider."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TE: torch.Tensor,
        weight_VE: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_T: torch.Tensor,
        chunk_tokens: int,
        dtype: torch.dtype,
        weigh: Weigh | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        wide = torch.promote_types(dtype, torch.float32)
        weight = weight_VE.to(dtype)
        bias = None if bias_V is None else bias_V.to(dtype)
        total, plain, weights = (hidden_TE.new_zeros((), dtype=wide) for _ in range(3))
        trained = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden_TE) if trained[0] else None
        grad_weight = torch.zeros_like(weight_VE, dtype=wide) if trained[1] else None
        grad_bias = torch.zeros_like(bias_V, dtype=wide) if bias_V is not None and trained[2] else None
        for start in range(0, len(targets_T), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            hidden, targets = hidden_TE[rows].to(dtype), targets_T[rows]
            counted = targets != IGNORED
            log_p = F.linear(hidden, weight, bias).to(wide).log_softmax(-1)
            place = targets.where(counted, 0)[:, None]
            losses = -log_p.gather(1, place)[:, 0].where(counted, 0)
            share = counted if weigh is None else weigh(rows, losses).to(wide) * counted
            total += losses.sum() if weigh is None else (losses * share).sum()
            plain += losses.sum()
            weights += share.sum()
            if not any(trained[:3]):
                continue
            gradient = log_p.exp_().scatter_add_(1, place, -torch.ones_like(place, dtype=wide))
            gradient *= share[:, None]
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
            low = gradient.to(dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = low @ weight
            if grad_weight is not None:
                grad_weight += low.T @ hidden
            del log_p, gradient, low  # before the next chunk's logits
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (hidden_TE.dtype, weight_VE.dtype, None if bias_V is None else bias_V.dtype)
        ctx.mark_non_differentiable(plain, weights)
        return total, plain, weights

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the loss's gradients were already used: one backward pass a loss")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = (None if g is None else g.mul_(outer[0]).to(d) for g, d in zip(gradients, ctx.dtypes, strict=True))
        return (*scaled, None, None, None, None)


def recomputed_loss(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden_TE: torch.Tensor,
    targets_T: torch.Tensor,
    chunk_tokens: int,
    weigh: Weigh | None = None,
) -> LossSums:
    """The sums for any `head`, which maps hidden states [t, E] to logits [t, V]."""
    wide = torch.promote_types(hidden_TE.dtype, torch.float32)
    total, plain, weights = (hidden_TE.new_zeros((), dtype=wide) for _ in range(3))
    for start in range(0, len(targets_T), chunk_tokens):
        rows = slice(start, start + chunk_tokens)
        given = (head, hidden_TE[rows], targets_T[rows], rows, weigh)
        part = checkpoint(_chunk_loss, *given, use_reentrant=False) if torch.is_grad_enabled() else _chunk_loss(*given)
        total, plain, weights = total + part[0], plain + part[1], weights + part[2]
    return LossSums(total, plain, weights)


def _chunk_loss(
    head: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, targets: torch.Tensor, rows: slice, weigh: Weigh | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = head(hidden)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counted = targets != IGNORED
    if weigh is None:
        total = F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="sum")
        return total, total.detach(), counted.sum()
    losses = F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="none")
    share = weigh(rows, losses.detach()).to(losses.dtype) * counted
    return (losses * share).sum(), losses.detach().sum(), share.sum()


def token_losses(
    head: Callable[[torch.Tensor], torch.Tensor], hidden_TE: torch.Tensor, targets_T: torch.Tensor, chunk_tokens: int
) -> torch.Tensor:
    """[T] -log p of each target in nats, float32 or wider, 0 where it is ignored. Without gradients."""
    parts = []
    with torch.no_grad():
        for hidden, targets in zip(hidden_TE.split(chunk_tokens), targets_T.split(chunk_tokens), strict=True):
            logits = head(hidden)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            parts.append(F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="none"))
    return torch.cat(parts)
