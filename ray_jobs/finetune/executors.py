"""Causal attention inside segments, computed by whatever the machine has.

Every executor has the signature `(query_THD, key_TKD, value_TKD, segments, scale, dropout) -> output_THD`, where T is the
number of tokens, H of query heads, K of key-value heads (K divides H) and D the head dimension. No key or value is repeated.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ray_jobs.finetune.segments import Segments

Executor = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Segments, float, float], torch.Tensor]


def sdpa_segments(
    query_THD: torch.Tensor, key_TKD: torch.Tensor, value_TKD: torch.Tensor, segments: Segments, scale: float, dropout: float
) -> torch.Tensor:
    """One scaled_dot_product_attention call for each run of equally long segments: memory is linear in T."""
    outputs = []
    num_heads, head_dim = query_THD.shape[1:]
    num_kv = key_TKD.shape[1]
    for first, count, length in segments.runs():
        rows = slice(first, first + count * length)
        # [count * K, H / K, length, D]: key-value heads join the batch, and broadcasting over the query heads of one is free.
        query = query_THD[rows].view(count, length, num_kv, -1, head_dim).permute(0, 2, 3, 1, 4).flatten(0, 1)
        key, value = (
            t[rows].view(count, length, num_kv, 1, head_dim).permute(0, 2, 3, 1, 4).flatten(0, 1).expand_as(query)
            for t in (key_TKD, value_TKD)
        )
        out = F.scaled_dot_product_attention(query, key, value, is_causal=length > 1, scale=scale, dropout_p=dropout)
        out = out.unflatten(0, (count, num_kv)).permute(0, 3, 1, 2, 4)
        outputs.append(out.reshape(count * length, num_heads, head_dim))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def torch_varlen(
    query_THD: torch.Tensor, key_TKD: torch.Tensor, value_TKD: torch.Tensor, segments: Segments, scale: float, dropout: float
) -> torch.Tensor:
    """FlashAttention as torch ships it (CUDA, bfloat16 or float16). Raises ValueError for dropout, which it has not."""
    from torch.nn.attention.varlen import varlen_attn

    if dropout:
        raise ValueError("the torch_varlen executor has no attention dropout: set it to 0, or training.s2_executor to sdpa")
    cu, longest = segments.cu_seqlens, segments.max_length
    output = varlen_attn(
        query_THD, key_TKD, value_TKD, cu, cu, longest, longest,
        scale=scale, window_size=(-1, 0), enable_gqa=key_TKD.shape[1] != query_THD.shape[1],
    )  # fmt: skip
    assert isinstance(output, torch.Tensor)  # a pair only where the log-sum-exp is asked for
    return output


def flash_attn_varlen(
    query_THD: torch.Tensor, key_TKD: torch.Tensor, value_TKD: torch.Tensor, segments: Segments, scale: float, dropout: float
) -> torch.Tensor:
    """The flash_attn package's variable-length kernel (CUDA, bfloat16 or float16)."""
    from flash_attn import flash_attn_varlen_func

    cu, longest = segments.cu_seqlens, segments.max_length
    return flash_attn_varlen_func(
        query_THD, key_TKD, value_TKD, cu, cu, longest, longest, dropout_p=dropout, softmax_scale=scale, causal=True
    )


EXECUTORS: dict[str, Executor] = {"flash_attn": flash_attn_varlen, "torch_varlen": torch_varlen, "sdpa": sdpa_segments}


def choose_executor(name: str, tensor: torch.Tensor) -> Executor:
    """The executor of that name; for "auto" the fastest that can take tensors like this one."""
    if name != "auto":
        return EXECUTORS[name]
    if tensor.is_cuda and tensor.dtype in (torch.bfloat16, torch.float16):
        if importlib.util.find_spec("flash_attn"):
            return flash_attn_varlen
        if importlib.util.find_spec("torch.nn.attention.varlen"):
            return torch_varlen
    return sdpa_segments


def executor_name(executor: Executor) -> str:
    return next(name for name, known in EXECUTORS.items() if known is executor)


def attention_dtype(*tensors: Any) -> torch.dtype:
    """The type attention should run in: autocast's where it is on, as kernels outside torch do not cast by themselves."""
    device = tensors[0].device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensors[0].dtype
