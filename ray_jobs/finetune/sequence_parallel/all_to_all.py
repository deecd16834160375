"""Heads in place of tokens: each worker gets all tokens of some heads, so that a row attends in full and the work is equal.

DeepSpeed-Ulysses (Jacobs et al. 2023, arXiv 2309.14509, section 3.1), for parts of different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from ray_jobs.finetune.sequence_parallel.exchange import Link


def heads_for_tokens(mine_THD: torch.Tensor, lengths: Sequence[int], link: Link) -> torch.Tensor:
    """[T, H / C, D] of all tokens from this worker's [t, H, D]; `lengths` [C] are the tokens of each of the C workers."""
    found: torch.Tensor = _ToHeads.apply(mine_THD, tuple(lengths), link)
    return found


def tokens_for_heads(mine_THD: torch.Tensor, lengths: Sequence[int], link: Link) -> torch.Tensor:
    """The inverse of `heads_for_tokens`: [t, H, D] from [T, H / C, D]."""
    found: torch.Tensor = _ToTokens.apply(mine_THD, tuple(lengths), link)
    return found


def _to_heads(mine: torch.Tensor, lengths: tuple[int, ...], link: Link) -> torch.Tensor:
    count, heads, width = mine.shape[0], mine.shape[1] // link.num_workers, mine.shape[2]
    sent = mine.unflatten(1, (link.num_workers, heads)).transpose(0, 1).contiguous()
    received = mine.new_empty(sum(lengths), heads, width)
    size = heads * width
    sizes = [n * size for n in lengths], [count * size] * link.num_workers
    with link.answering():
        dist.all_to_all_single(received.view(-1), sent.view(-1), *sizes, group=link.group)
    return received


def _to_tokens(mine: torch.Tensor, lengths: tuple[int, ...], link: Link) -> torch.Tensor:
    count, heads, width = lengths[link.index], mine.shape[1], mine.shape[2]
    received = mine.new_empty(link.num_workers, count, heads, width)
    size = heads * width
    sizes = [count * size] * link.num_workers, [n * size for n in lengths]
    with link.answering():
        dist.all_to_all_single(received.view(-1), mine.contiguous().view(-1), *sizes, group=link.group)
    return received.transpose(0, 1).flatten(1, 2)


class _ToHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, lengths: tuple[int, ...], link: Link) -> torch.Tensor:
        ctx.of = lengths, link
        return _to_heads(mine, lengths, link)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _to_tokens(grads[0], *ctx.of), None, None


class _ToTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, lengths: tuple[int, ...], link: Link) -> torch.Tensor:
        ctx.of = lengths, link
        return _to_tokens(mine, lengths, link)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _to_heads(grads[0], *ctx.of), None, None
