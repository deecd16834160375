"""Attention of one forward pass over many branches of a tree of sequences, put one after another: no padding, no mask.

A branch attends to its own earlier tokens (causal), and to all of the pieces it comes from. Both parts are computed apart, and
joined by their log-sum-exp, as in FlashAttention's blocks (Dao et al. 2022, arXiv 2205.14135, section 3.1). Letters: T tokens of
the pass, M of a block, H heads, N key-value heads, G heads of each, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from tasks.model.attention_scores import ScoreChange

NAME = "ropeway_tree"
# Elements of a mask, where a device needs one: 64 MB as booleans.
MAX_MASK = 64 * 1024 * 1024

KeyValue = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Block:
    """Rows `start`..`end`-1 of the pass; they see themselves, causally, and all of `sees`.

    `sees`: (None, first, end) are rows of the pass, (number, 0, end) the first ones of what is kept under that number.
    """

    start: int
    end: int
    sees: tuple[tuple[int | None, int, int], ...] = ()


@dataclass
class Layout:
    """What the attention of one pass needs to know.

    `keeps`: (number, first row, end) whose keys and values are put into `kept`, by layer and number. In layer `last_layer` only the
    rows of `last_blocks` are computed, as nothing else is asked of it; the others are zeros.
    """

    blocks: Sequence[Block]
    last_blocks: Sequence[Block]
    last_layer: int
    keeps: Sequence[tuple[int, int, int]] = ()
    kept: dict[tuple[int, int], KeyValue] = field(default_factory=dict)


_layout: ContextVar[Layout] = ContextVar("layout")


def configs_of(model: Any) -> list[Any]:
    """The configurations of a model and its parts, each once."""
    found = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    return list(found.values())


@contextmanager
def attending(configs: Sequence[Any], layout: Layout) -> Iterator[None]:
    """Within this, the model with these configurations attends as `layout` says."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    before = [(config, config._attn_implementation) for config in configs]
    token = _layout.set(layout)
    try:
        for config, _ in before:
            config._attn_implementation = NAME
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name
        _layout.reset(token)


def attend(
    module: Any, query_1HTD: torch.Tensor, key_1NTD: torch.Tensor, value_1NTD: torch.Tensor, mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: [1, T, H, D]. ValueError for a layer that changes its scores, by a cap or a sink."""
    if ScoreChange.of_options(options) is not None:
        raise ValueError(f"{type(module).__name__} changes its attention scores")
    layout, layer = _layout.get(), int(module.layer_idx)
    for number, first, end in layout.keeps:
        layout.kept[layer, number] = key_1NTD[:, :, first:end].clone(), value_1NTD[:, :, first:end].clone()
    is_last = layer == layout.last_layer
    num_heads, num_kv, num_tokens = query_1HTD.shape[1], key_1NTD.shape[1], query_1HTD.shape[2]
    query_NGTD = query_1HTD.unflatten(1, (num_kv, num_heads // num_kv))[0]
    make = query_1HTD.new_zeros if is_last else query_1HTD.new_empty
    out_TNGD = make(num_tokens, num_kv, num_heads // num_kv, value_1NTD.shape[-1])
    for block in layout.last_blocks if is_last else layout.blocks:
        own = key_1NTD[:, :, block.start : block.end], value_1NTD[:, :, block.start : block.end]
        seen = [
            (key_1NTD[:, :, first:end], value_1NTD[:, :, first:end])
            if number is None
            else (layout.kept[layer, number][0][:, :, first:end], layout.kept[layer, number][1][:, :, first:end])
            for number, first, end in block.sees
        ]
        part_NGMD = _block(query_NGTD[:, :, block.start : block.end], own, seen, options.get("scaling"))
        out_TNGD[block.start : block.end] = part_NGMD.permute(2, 0, 1, 3)
    return out_TNGD.flatten(1, 2)[None], None


def _block(query_NGMD: torch.Tensor, own: KeyValue, seen: Sequence[KeyValue], scale: float | None) -> torch.Tensor:
    if query_NGMD.device.type != "cpu" or own[0].shape[-1] != own[1].shape[-1]:
        return _masked(query_NGMD, own, seen, scale)
    out, sums = _flash(query_NGMD, *own, causal=True, scale=scale)
    for key, value in seen:
        other, other_sums = _flash(query_NGMD, key, value, causal=False, scale=scale)
        out = torch.lerp(out, other, torch.sigmoid(other_sums - sums)[..., None].to(out.dtype))
        sums = torch.logaddexp(sums, other_sums)
    return out


def _flash(
    query_NGMD: torch.Tensor, key_1NSD: torch.Tensor, value_1NSD: torch.Tensor, *, causal: bool, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """PyTorch's own kernel, which also gives the log-sum-exp [N, G, M] of each row."""
    groups = query_NGMD.shape[1]
    key, value = (t.transpose(0, 1).expand(-1, groups, -1, -1) for t in (key_1NSD, value_1NSD))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, sums = kernel(query_NGMD, key, value, 0.0, causal, scale=scale)
    return out, sums


def _masked(query_NGMD: torch.Tensor, own: KeyValue, seen: Sequence[KeyValue], scale: float | None) -> torch.Tensor:
    """The same by a mask, in pieces of rows."""
    key, value = (torch.cat([*(pair[i] for pair in seen), own[i]], dim=2).transpose(0, 1) for i in (0, 1))
    groups, num_rows, num_keys = query_NGMD.shape[1], query_NGMD.shape[2], key.shape[2]
    pieces = []
    for start in range(0, num_rows, rows := max(1, MAX_MASK // num_keys)):
        piece = query_NGMD[:, :, start : start + rows]
        end = num_keys - num_rows + start + piece.shape[2]
        mask = torch.ones(piece.shape[2], end, dtype=torch.bool, device=piece.device).tril(end - piece.shape[2])
        keys, values = (t[:, :, :end].expand(-1, groups, -1, -1) for t in (key, value))
        pieces.append(torch.nn.functional.scaled_dot_product_attention(piece, keys, values, attn_mask=mask, scale=scale))
    return torch.cat(pieces, dim=2)
