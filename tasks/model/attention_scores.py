"""Attention whose scores are changed before the softmax, exactly and with memory linear in the length.

    softcap  score -> c tanh(score / c)                          Gemma 2, arXiv 2408.00118, section 2
    sinks    one more score for each head, with no value behind  gpt-oss, arXiv 2508.10925, section 2.2

torch's kernels compute neither, so `attend_in_blocks` computes them: scores of one block of queries at a time, again in the backward
pass. `FULL_ATTENTION` is transformers' own SDPA for layers that change nothing, and these blocks for the others.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError

if TYPE_CHECKING:
    import torch

FULL_ATTENTION = "ropeway_full"
BLOCK_ELEMENTS = 2**24  # scores that are held at once: 64 MB in float32
_KINDS = {"softcap": "soft-capping of scores", "s_aux": "attention sinks"}


@dataclass(frozen=True)
class ScoreChange:
    """What a layer does to its scores; `sinks_H` has one score for each query head."""

    softcap: float | None = None
    sinks_H: torch.Tensor | None = None

    @classmethod
    def of_options(cls, options: dict[str, Any]) -> ScoreChange | None:
        """From the options that a layer gives to transformers' attention interface; None if it changes nothing."""
        softcap, sinks = options.get("softcap"), options.get("s_aux")
        return None if softcap is None and sinks is None else cls(softcap, sinks)

    def of_heads(self, heads: slice) -> ScoreChange:
        """For some of the query heads."""
        return ScoreChange(self.softcap, None if self.sinks_H is None else self.sinks_H[heads])

    @property
    def kinds(self) -> frozenset[str]:
        """What it does, in words for people."""
        given = {"softcap": self.softcap, "s_aux": self.sinks_H}
        return frozenset(_KINDS[name] for name, value in given.items() if value is not None)


def changes_of(config: Any) -> frozenset[str]:
    """What the layers of a model of this configuration do to their scores, in words for people."""
    import torch
    from transformers import AutoModelForCausalLM

    found = {"softcap"} if getattr(config, "attn_logit_softcapping", None) is not None else set()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.bfloat16, trust_remote_code=False)
    if any(getattr(module, "sinks", None) is not None for module in model.modules()):
        found.add("s_aux")
    return frozenset(_KINDS[name] for name in found)


def attend_in_blocks(
    query_NGLD: torch.Tensor,
    key_N1MD: torch.Tensor,
    value_N1MD: torch.Tensor,
    scale: float,
    change: ScoreChange,
    *,
    window: int | None = None,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention of L queries to M keys: [N, G, L, D]. N are key-value heads (of all rows), G the query heads that share one.

    Without a `mask` it is causal, and the last query is at the last key; `window` as in `ray_jobs.finetune.executors`. A `mask`
    [N, G or 1, L, M] is bool (True: seen) or added to the scores. `change.sinks_H` must be [N, G] here.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    (heads, group, length), num_keys = query_NGLD.shape[:3], key_N1MD.shape[2]
    behind = num_keys - length  # the key of query i is behind + i
    rows = max(16, BLOCK_ELEMENTS // max(1, heads * group * min(num_keys, window or num_keys)))
    outputs = []
    for start in range(0, length, rows):
        end = min(start + rows, length)
        first = 0 if window is None or mask is not None else max(0, behind + start - window + 1)
        last = num_keys if mask is not None else behind + end
        if mask is None:
            device = query_NGLD.device
            distance = torch.arange(behind + start, last, device=device)[:, None] - torch.arange(first, last, device=device)
            seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        else:
            seen = mask[:, :, start:end]
        parts = (query_NGLD[:, :, start:end], key_N1MD[:, :, first:last], value_N1MD[:, :, first:last])
        if torch.is_grad_enabled():
            outputs.append(checkpoint(_block, *parts, seen, scale, change, dropout, use_reentrant=False))
        else:
            outputs.append(_block(*parts, seen, scale, change, dropout))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _block(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor,
    scale: float,
    change: ScoreChange,
    dropout: float,
) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    group, rows = query.shape[1:3]
    # The query heads of a key-value head are rows of one product, so that no key is repeated.
    scores = (query.flatten(1, 2) @ key[:, 0].transpose(-1, -2)).unflatten(1, (group, rows))
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    if change.softcap is not None:
        scores = change.softcap * (scores / change.softcap).tanh()
    # The lowest number instead of -inf: padding may leave a query without a key.
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min) if seen.dtype == torch.bool else scores + seen
    if change.sinks_H is None:
        shares = scores.softmax(-1)
    else:
        sinks = change.sinks_H[:, :, None, None].to(scores.dtype)
        shares = (scores - torch.logaddexp(scores.logsumexp(-1, keepdim=True), sinks)).exp()
    shares = (F.dropout(shares, dropout) if dropout else shares).to(value.dtype)
    return (shares.flatten(1, 2) @ value[:, 0]).unflatten(1, (group, rows))


def attend_with_mask(
    query_BHLD: torch.Tensor,
    key_BKMD: torch.Tensor,
    value_BKMD: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    change: ScoreChange,
    window: int | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """`attend_in_blocks` for tensors and masks as transformers has them: [B, L, H, D]."""
    batch, num_kv, num_keys = key_BKMD.shape[:3]
    num_heads, length = query_BHLD.shape[1:3]
    group = num_heads // num_kv
    query = query_BHLD.unflatten(1, (num_kv, group)).flatten(0, 1)
    key, value = (t.flatten(0, 1)[:, None] for t in (key_BKMD, value_BKMD))
    if mask is not None:
        mask = mask[..., :num_keys].expand(batch, num_heads, length, num_keys)
        mask = mask.unflatten(1, (num_kv, group)).flatten(0, 1)
    sinks = None if change.sinks_H is None else change.sinks_H.view(num_kv, group).repeat(batch, 1)
    grouped = ScoreChange(change.softcap, sinks)
    output = attend_in_blocks(query, key, value, scale, grouped, window=window, mask=mask, dropout=dropout)
    return output.unflatten(0, (batch, num_kv)).flatten(1, 2).transpose(1, 2)


def register_full_attention() -> str:
    """Register `FULL_ATTENTION` with transformers, and return that name. Calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(FULL_ATTENTION, full_attention_forward)
    AttentionMaskInterface.register(FULL_ATTENTION, sdpa_mask)
    return FULL_ATTENTION


def full_attention_forward(
    module: torch.nn.Module,
    query_BHLD: torch.Tensor,
    key_BKMD: torch.Tensor,
    value_BKMD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: transformers' own SDPA, or the same with changed scores. Output [B, L, H, D].

    UserError for a layer that changes its scores and is not causal.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    change = ScoreChange.of_options(options)
    if change is None:
        return sdpa_attention_forward(
            module, query_BHLD, key_BKMD, value_BKMD, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    if attention_mask is None and (not getattr(module, "is_causal", True) or options.get("is_causal") is False):
        raise UserError(f"{type(module).__name__} is not causal and changes its scores, which this attention does not compute.")
    scale = query_BHLD.shape[-1] ** -0.5 if scaling is None else scaling
    window = options.get("sliding_window") if attention_mask is None else None
    return attend_with_mask(query_BHLD, key_BKMD, value_BKMD, attention_mask, scale, change, window, dropout), None
