"""FlashAttention 3 (Shah et al. 2024, arXiv 2407.08608) for Hopper GPUs, from the module `flash_attn_interface` that its authors build.

It is used only where `training.s2_executor` names it: it has not run here yet. `python -m benchmarks.gpu_parity` compares it.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ray_jobs.finetune.segments import Segments
    from tasks.model.attention_scores import ScoreChange

MODULE = "flash_attn_interface"


def flash_attn_3_varlen(
    query_THD: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    segments: Segments,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    change: ScoreChange | None = None,
) -> torch.Tensor:
    """See `ray_jobs.finetune.executors`. Raises ValueError for dropout and attention sinks, which it does not have."""
    from flash_attn_interface import flash_attn_varlen_func

    if dropout:
        raise ValueError("the flash_attn_3 executor has no attention dropout: set training.s2_executor to flash_attn or sdpa")
    if change is not None and change.sinks_H is not None:
        raise ValueError("the flash_attn_3 executor has no attention sinks: set training.s2_executor to torch_varlen or sdpa")
    capped = {} if change is None or change.softcap is None else {"softcap": change.softcap}
    cu, longest = segments.cu_seqlens, segments.max_length
    reach = (-1, -1) if window is None else (window - 1, 0)
    found = flash_attn_varlen_func(
        query_THD, key_TKD, value_TKD, cu, cu, longest, longest, softmax_scale=scale, causal=True, window_size=reach, **capped
    )
    output: torch.Tensor = found[0] if isinstance(found, tuple) else found  # older builds add the log-sum-exp
    return output


def obstacle_to_flash_attn_3(device: torch.device, has_dropout: bool) -> str:
    """Why it cannot run on this machine, beside what all kernels of its kind need; "" if it can."""
    if not importlib.util.find_spec(MODULE):
        return f"the module {MODULE} of FlashAttention 3 is not installed"
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] != 9:
        return "it needs a Hopper GPU (compute capability 9.0)"
    return "it has no attention dropout" if has_dropout else ""
