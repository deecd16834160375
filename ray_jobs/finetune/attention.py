"""Shifted sparse attention (S2-Attn) for any transformers model that uses the attention interface.

LongLoRA (Chen et al. 2023, arXiv 2309.12307), corrected: groups are counted from each document's first token, no group wraps
round, and heads are split between key-value heads. Half of the heads attend inside groups of g tokens, the other half inside
groups shifted by g/2. So neighbouring groups exchange information from layer to layer, at linear cost.

    register_s2_attention()
    model.config.s2_group_size = 4096
    model.set_attn_implementation("s2")

Rows are packed: pass `position_ids` that restart at each document and no padding mask. In evaluation mode the same name
computes plain full causal attention (within documents), unless the layer is marked by `measure_sparse`.

It can be sparse in part: `model.config.s2_full_layers` numbers the layers that attend in full, `model.config.s2_full_heads` has pairs
of a layer and one of its key-value heads that does, with its query heads, and a forward pass with
`s2_in_full`, bool [B, L] like `position_ids`, lets the documents whose tokens are True attend in full in all layers.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F

from data_schemas.errors import UserError
from ray_jobs.finetune.executors import Executor, attention_dtype, choose_executor
from ray_jobs.finetune.segments import RowSegments, default_group_size, segment_batch
from ray_jobs.finetune.sequence_parallel.attention import Heads, RowPart, attend_part, attend_part_in_full
from tasks.model.attention_scores import ScoreChange, full_attention_forward

S2_ATTENTION = "s2"
_MEASURED = "s2_is_measured"  # of an attention layer
UNCOMPUTED_OPTIONS = ("position_bias",)  # options of a layer that change its scores and that no executor computes


def measure_sparse(module: torch.nn.Module, is_measured: bool) -> None:
    """Make an attention layer in evaluation mode compute S2-Attn, as in training but without dropout, or full attention again."""
    setattr(module, _MEASURED, is_measured)


def register_s2_attention() -> None:
    """Register "s2" as an attention and as a mask function. Nothing is patched; calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(S2_ATTENTION, s2_attention_forward)
    AttentionMaskInterface.register(S2_ATTENTION, s2_mask)


def s2_mask(
    batch_size: int, q_length: int, kv_length: int, *, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> torch.Tensor | None:
    """No mask for packed rows, whose documents are known from `position_ids`; transformers' mask for padding and caches."""
    from transformers.masking_utils import sdpa_mask

    padded = attention_mask is not None and not bool(attention_mask.all())
    if q_length == kv_length and not padded:
        return None
    return sdpa_mask(batch_size, q_length, kv_length, attention_mask=attention_mask, **kwargs)


def s2_attention_forward(
    module: torch.nn.Module,
    query_BHLD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_ids: torch.Tensor | None = None,
    sliding_window: int | None = None,
    s2_in_full: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: queries [B, H, L, D], keys and values [B, K, L, D] -> output [B, L, H, D].

    Training mode is S2-Attn, evaluation mode and layers of `s2_full_layers` full attention. A layer whose sliding window is
    shorter than a group computes exactly that window in both modes: it is cheaper than groups already, and the base's own pattern
    is kept. Logit soft-capping (`softcap`) and attention sinks (`s_aux`) are computed as the base does. UserError for padding
    while training, and for position biases and non-causal layers. Dropout is of training mode alone.
    """
    batch, _, length, _ = query_BHLD.shape
    _refuse_options(module, kwargs)
    is_sparse = module.training or getattr(module, _MEASURED, False)
    if is_sparse and attention_mask is not None:
        raise UserError("S2-Attn trains on packed rows: pass position_ids that restart at each document and no padding mask.")
    if not is_sparse and (attention_mask is not None or length != key_BKLD.shape[2]):
        return full_attention_forward(
            module, query_BHLD, key_BKLD, value_BKLD, attention_mask, scaling=scaling,
            sliding_window=sliding_window, **kwargs,
        )  # fmt: skip
    if position_ids is None:
        position_ids = torch.arange(length, device=query_BHLD.device).expand(batch, -1)
    part = part_of(position_ids)
    segments = _segments(module, position_ids, batch, s2_in_full) if part is None else part.segments
    # Chosen by the layer and the group alone: a document's output must not depend on what else is in the batch.
    in_groups = is_sparse and not is_full_layer(module) and not _is_shorter(sliding_window, _group_size(module))
    window = sliding_window if _is_shorter(sliding_window, segments.documents.max_length) else None

    scale = query_BHLD.shape[-1] ** -0.5 if scaling is None else scaling
    dropout = dropout if module.training else 0.0
    dtype = attention_dtype(query_BHLD)
    query, key, value = (t.transpose(1, 2).flatten(0, 1).to(dtype) for t in (query_BHLD, key_BKLD, value_BKLD))
    value_dim = value.shape[-1]
    if (
        value_dim != query.shape[-1]
    ):  # multi-head latent attention; the added zeros change neither the scores nor the other values
        width = max(value_dim, query.shape[-1])
        query, key, value = (F.pad(t, (0, width - t.shape[-1])) for t in (query, key, value))
    change = ScoreChange.of_options(kwargs)
    execute = choose_executor(getattr(module.config, "s2_executor", "auto"), query, dropout, change)
    if part is not None:
        if in_groups and segments.unshifted.bounds != segments.shifted.bounds:
            halves = head_groups(query.shape[1], key.shape[1], segments, full_heads(module))
            output = attend_part(query, key, value, part, halves, execute, scale, dropout, window, change)
        else:
            output = attend_part_in_full(query, key, value, part, execute, scale, dropout, window, change)
    elif in_groups:
        output = shifted_sparse_attention(
            query, key, value, segments, execute, scale, dropout, window, change, full_heads(module)
        )
    else:
        output = execute(query, key, value, segments.documents, scale, dropout, window, change)
    # Models may view the heads as one dimension, as they do with the output of transformers' own functions.
    return output[..., :value_dim].to(query_BHLD.dtype).unflatten(0, (batch, length)).contiguous(), None


def shifted_sparse_attention(
    query_THD: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    segments: RowSegments,
    execute: Executor,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    change: ScoreChange | None = None,
    in_full: frozenset[int] = frozenset(),
) -> torch.Tensor:
    """S2-Attn over T flattened tokens: [T, H, D] from [T, H, D] and twice [T, K, D].

    The key-value heads `in_full` and their query heads attend to whole documents. See `head_groups` for the others. A `window` of at
    least a group cuts the documents that attend in full.
    """
    if segments.unshifted.bounds == segments.shifted.bounds:  # no document is longer than half a group
        return execute(query_THD, key_TKD, value_TKD, segments.unshifted, scale, dropout, window, change)
    parts = [
        execute(
            query_THD[:, heads], key_TKD[:, kv_heads], value_TKD[:, kv_heads], partition, scale, dropout, window,
            None if change is None else change.of_heads(heads),
        )
        for heads, kv_heads, partition in head_groups(query_THD.shape[1], key_TKD.shape[1], segments, in_full)
    ]  # fmt: skip
    return torch.cat(parts, dim=1)


def head_groups(num_heads: int, num_kv: int, segments: RowSegments, in_full: frozenset[int] = frozenset()) -> list[Heads]:
    """The heads in order, neighbours of the same segments together.

    Of the key-value heads that are not `in_full`, the first half (rounded up) and their query heads are unshifted, the others are
    shifted. With one key-value head both halves share it and the query heads are split; one query head is unshifted.
    """
    per_kv = num_heads // num_kv
    if num_kv == 1:
        if in_full:
            return [Heads(slice(0, num_heads), slice(0, 1), segments.documents)]
        split = (num_heads + 1) // 2
        halves = [Heads(slice(0, split), slice(0, 1), segments.unshifted)]
        return halves + ([Heads(slice(split, None), slice(0, 1), segments.shifted)] if split < num_heads else [])
    sparse = [head for head in range(num_kv) if head not in in_full]
    unshifted = frozenset(sparse[: (len(sparse) + 1) // 2])
    kinds = [
        segments.documents if h in in_full else segments.unshifted if h in unshifted else segments.shifted
        for h in range(num_kv)
    ]
    groups = []
    for _, run in groupby(range(num_kv), key=lambda head: id(kinds[head])):
        heads = list(run)
        first, end = heads[0], heads[-1] + 1
        groups.append(Heads(slice(first * per_kv, end * per_kv), slice(first, end), kinds[first]))
    return groups


def mark_part(position_ids: torch.Tensor, part: RowPart) -> torch.Tensor:
    """`position_ids` [1, t] of one worker's part of a row, with which attention layers find the rest of the row."""
    position_ids._s2_part = part  # type: ignore[attr-defined]
    return position_ids


def part_of(position_ids: torch.Tensor) -> RowPart | None:
    """The part that `position_ids` were marked with; None for whole rows."""
    part: RowPart | None = getattr(position_ids, "_s2_part", None)
    if part is not None:
        part.is_read = True
    return part


def is_full_layer(module: torch.nn.Module) -> bool:
    """Whether an attention layer is one of `s2_full_layers` in its configuration."""
    return getattr(module, "layer_idx", None) in (getattr(module.config, "s2_full_layers", None) or ())


def full_heads(module: torch.nn.Module) -> frozenset[int]:
    """The key-value heads of an attention layer that attend in full, by `s2_full_heads` in its configuration."""
    layer = getattr(module, "layer_idx", None)
    return frozenset(head for of_layer, head in getattr(module.config, "s2_full_heads", None) or () if of_layer == layer)


def _is_shorter(window: int | None, num_tokens: int) -> bool:
    return window is not None and window < num_tokens


def _segments(module: torch.nn.Module, position_ids: torch.Tensor, batch: int, in_full: torch.Tensor | None) -> RowSegments:
    """The batch's segments, computed once and kept on the `position_ids` tensor, which is the same for all layers."""
    group_size = _group_size(module)
    # In torch.inference_mode tensors do not count their changes, so nothing is kept.
    key = None if position_ids.is_inference() else (group_size, batch, position_ids._version)
    cached = getattr(position_ids, "_s2_segments", None)
    if key is not None and cached is not None and cached[0] == key and cached[1] is in_full:
        return cached[2]
    positions, marks = (  # as they are where possible, with their copies on the CPU
        t if t is None or len(t) == batch else t.expand(batch, -1) for t in (position_ids, in_full)
    )
    assert positions is not None
    segments = segment_batch(positions, group_size, marks)
    if key is not None:
        position_ids._s2_segments = (key, in_full, segments)  # type: ignore[attr-defined]
    if in_full is not None:
        in_full._s2_is_read = True  # type: ignore[attr-defined]  # tells the caller that the model passed it on
    return segments


def _group_size(module: torch.nn.Module) -> int:
    config: Any = module.config
    return int(getattr(config, "s2_group_size", None) or default_group_size(config.max_position_embeddings))


def _refuse_options(module: torch.nn.Module, kwargs: dict[str, Any]) -> None:
    name = type(module).__name__
    for option in UNCOMPUTED_OPTIONS:
        if kwargs.get(option) is not None:
            raise UserError(f"{name} uses {option}, which this attention does not compute: choose a base without it.")
    if not getattr(module, "is_causal", True) or kwargs.get("is_causal") is False:
        raise UserError(f"{name} is not causal: S2-Attn is for causal language models.")
