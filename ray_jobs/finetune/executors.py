"""Causal attention inside segments, by the best kernel that this machine has.

Every executor has the signature `(query_THD, key_TKD, value_TKD, segments, scale, dropout, window, change) -> output_THD`, where T
is the number of tokens, H of query heads, K of key-value heads (K divides H) and D the head dimension. With a `window` a token
sees itself and the `window - 1` tokens before it, inside its segment. A `change` caps the scores or adds sinks to them; `CHANGES`
says which executor computes which. No key or value is repeated, memory is linear in T.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F

from data_schemas.errors import UserError
from ray_jobs.finetune.flash_attn_3 import flash_attn_3_varlen, obstacle_to_flash_attn_3
from ray_jobs.finetune.segments import Segments
from ray_jobs.finetune.sinks import AttentionWithSinks
from tasks.model.attention_scores import ScoreChange, attend_in_blocks, changes_of

if TYPE_CHECKING:
    from data_schemas.params import TrainingParams

SMALLEST_BLOCK = 256  # queries that share a call under a window; with smaller blocks the calls cost more than they save


class Executor(Protocol):
    """See the module's docstring."""

    def __call__(
        self,
        query_THD: torch.Tensor,
        key_TKD: torch.Tensor,
        value_TKD: torch.Tensor,
        segments: Segments,
        scale: float,
        dropout: float = 0.0,
        window: int | None = None,
        change: ScoreChange | None = None,
    ) -> torch.Tensor: ...


def sdpa_segments(
    query_THD: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    segments: Segments,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    change: ScoreChange | None = None,
) -> torch.Tensor:
    """One scaled_dot_product_attention call for each run of segments of equal length; any device, any dtype, any `change`."""
    outputs = []
    num_heads, head_dim = query_THD.shape[1:]
    num_kv = key_TKD.shape[1]
    for first, count, length in segments.runs():
        rows = slice(first, first + count * length)
        # [count * K, H / K, length, D]: key-value heads join the batch; broadcasting one over its query heads copies nothing.
        query = query_THD[rows].view(count, length, num_kv, -1, head_dim).permute(0, 2, 3, 1, 4).flatten(0, 1)
        key, value = (
            t[rows].view(count, length, num_kv, 1, head_dim).permute(0, 2, 3, 1, 4).flatten(0, 1).expand_as(query)
            for t in (key_TKD, value_TKD)
        )
        reach = None if window is None or length <= window else window
        if change is not None:
            sinks = None if change.sinks_H is None else change.sinks_H.view(num_kv, -1).repeat(count, 1)
            out = attend_in_blocks(
                query, key[:, :1], value[:, :1], scale, ScoreChange(change.softcap, sinks), window=reach, dropout=dropout
            )
        elif reach is None:
            out = F.scaled_dot_product_attention(query, key, value, is_causal=length > 1, scale=scale, dropout_p=dropout)
        else:
            out = _banded(query, key, value, reach, scale, dropout)
        out = out.unflatten(0, (count, num_kv)).permute(0, 3, 1, 2, 4)
        outputs.append(out.reshape(count * length, num_heads, head_dim))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _banded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int, scale: float, dropout: float
) -> torch.Tensor:
    """Sliding-window attention over [..., L, D], one block of queries with its keys at a time: L x window, not L x L."""
    length = query.shape[-2]
    block = max(window, SMALLEST_BLOCK)
    outputs = []
    for start in range(0, length, block):
        end, first = min(start + block, length), max(0, start - window + 1)
        distance = torch.arange(start, end, device=query.device)[:, None] - torch.arange(first, end, device=query.device)
        mask = (distance >= 0) & (distance < window)
        keys, values = key[..., first:end, :], value[..., first:end, :]
        queries = query[..., start:end, :]
        outputs.append(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale, dropout_p=dropout))
    return torch.cat(outputs, dim=-2)


def torch_varlen(
    query_THD: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    segments: Segments,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    change: ScoreChange | None = None,
) -> torch.Tensor:
    """FlashAttention as torch ships it (CUDA, bfloat16 or float16), with sinks through its log-sum-exp.

    Raises ValueError for dropout and for soft-capping, which it does not have.
    """
    from torch.nn.attention.varlen import varlen_attn

    if dropout:
        raise ValueError("the torch_varlen executor has no attention dropout: set it to 0, or training.s2_executor to sdpa")
    if change is not None and change.softcap is not None:
        raise ValueError("the torch_varlen executor has no soft-capping of scores: set training.s2_executor to sdpa")
    grouped: dict[str, Any] = {}
    if key_TKD.shape[1] != query_THD.shape[1]:
        if "enable_gqa" in _varlen_options():
            grouped["enable_gqa"] = True
        else:  # torch 2.11
            repeats = query_THD.shape[1] // key_TKD.shape[1]
            key_TKD, value_TKD = (t.repeat_interleave(repeats, dim=1) for t in (key_TKD, value_TKD))
    cu, longest = segments.cu_seqlens, segments.max_length
    left = -1 if window is None else window - 1
    if change is not None and change.sinks_H is not None:
        kernel = _TorchVarlen(cu, longest, scale, left, grouped)
        with_sinks: torch.Tensor = AttentionWithSinks.apply(query_THD, key_TKD, value_TKD, change.sinks_H, kernel)
        return with_sinks
    output = varlen_attn(query_THD, key_TKD, value_TKD, cu, cu, longest, longest, scale=scale, window_size=(left, 0), **grouped)
    assert isinstance(output, torch.Tensor)  # it returns a pair only with the log-sum-exp
    return output


@dataclass(frozen=True)
class _TorchVarlen:
    """torch's kernel and its backward, for `AttentionWithSinks`: the public function does not take another log-sum-exp back."""

    cu_seqlens: torch.Tensor
    longest: int
    scale: float
    left: int  # tokens before a query that it sees; -1: all
    grouped: dict[str, Any]

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output, sums, _ = torch.ops.torch_attn._varlen_attn(
            query, key, value, self.cu_seqlens, self.cu_seqlens, self.longest, self.longest,
            self.left == -1, self.scale, [self.left, 0], **self.grouped,
        )  # fmt: skip
        return output, sums

    def backward(
        self,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        output: torch.Tensor,
        sums: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        no_dropout = torch.zeros(2, dtype=torch.uint64, device=query.device)
        return torch.ops.torch_attn._varlen_attn_backward(
            grad, query, key, value, output, sums, self.cu_seqlens, self.cu_seqlens, self.longest, self.longest,
            self.left == -1, no_dropout, self.scale, [self.left, 0],
        )  # fmt: skip


@lru_cache(maxsize=1)
def _varlen_options() -> frozenset[str]:
    """Names of the parameters of this torch's varlen_attn; newer versions have more."""
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def flash_attn_varlen(
    query_THD: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    segments: Segments,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    change: ScoreChange | None = None,
) -> torch.Tensor:
    """The flash_attn package's variable-length kernel (CUDA, bfloat16 or float16), with soft-capping from version 2.6.

    Raises ValueError for attention sinks, which it does not have.
    """
    from flash_attn import flash_attn_varlen_func

    if change is not None and change.sinks_H is not None:
        raise ValueError("the flash_attn executor has no attention sinks: set training.s2_executor to torch_varlen or sdpa")
    capped = {} if change is None or change.softcap is None else {"softcap": change.softcap}

    cu, longest = segments.cu_seqlens, segments.max_length
    reach = (-1, -1) if window is None else (window - 1, 0)
    return flash_attn_varlen_func(
        query_THD, key_TKD, value_TKD, cu, cu, longest, longest,
        dropout_p=dropout, softmax_scale=scale, causal=True, window_size=reach, **capped,
    )  # fmt: skip


EXECUTORS: dict[str, Executor] = {
    "flash_attn": flash_attn_varlen,
    "torch_varlen": torch_varlen,
    "sdpa": sdpa_segments,
    "flash_attn_3": flash_attn_3_varlen,  # after sdpa, which can compute all: auto never takes it
}
CHANGES: dict[str, frozenset[str]] = {
    "flash_attn_3": frozenset({"soft-capping of scores"}),
    "flash_attn": frozenset({"soft-capping of scores"}),
    "torch_varlen": frozenset({"attention sinks"}),
    "sdpa": frozenset({"soft-capping of scores", "attention sinks"}),
}
"""The changes of scores (`ScoreChange.kinds`) that each executor computes."""


_REHEARSED = torch.device("meta")  # tensors without content, which stand for a recent GPU's
_rehearsing: ContextVar[bool] = ContextVar("rehearsing", default=False)


@contextmanager
def rehearsing_gpu() -> Iterator[None]:
    """Within it, executors are chosen for tensors without content as a recent GPU would choose them."""
    token = _rehearsing.set(True)
    try:
        yield
    finally:
        _rehearsing.reset(token)


@lru_cache(maxsize=64)
def obstacle(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    has_dropout: bool = False,
    changes: frozenset[str] = frozenset(),
) -> str:
    """Why this executor cannot compute such tensors, with these changes of scores, on this machine; "" if it can."""
    if name == "sdpa":
        return ""
    if name == "flash_attn" and not importlib.util.find_spec("flash_attn"):
        return "the package flash_attn is not installed"
    if name == "torch_varlen" and not importlib.util.find_spec("torch.nn.attention.varlen"):
        return f"torch {torch.__version__} has no torch.nn.attention.varlen"
    if name == "flash_attn_3" and (why := obstacle_to_flash_attn_3(device, has_dropout)):
        return why
    if name in ("flash_attn", "flash_attn_3") and device == _REHEARSED:
        return "it computes nothing without a GPU"
    if device.type != "cuda" and device != _REHEARSED:
        return f"it needs a CUDA device, not {device.type}"
    if device != _REHEARSED and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs a GPU of compute capability 8.0 or newer"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it computes in bfloat16 or float16, not {str(dtype).removeprefix('torch.')}"
    if head_dim > 256 or head_dim % 8:
        return f"it needs a head dimension that is a multiple of 8, at most 256, not {head_dim}"
    if name == "torch_varlen" and "window_size" not in _varlen_options():
        return f"torch {torch.__version__} is older than 2.11"
    if name == "torch_varlen" and has_dropout:
        return "it has no attention dropout"
    if missing := changes - CHANGES[name]:
        return f"it has no {', '.join(sorted(missing))}"
    return _load_failure(name)


def _load_failure(name: str) -> str:
    """Why an installed package cannot be loaded, such as a flash_attn built for another torch; "" if it can."""
    if name != "flash_attn":
        return ""
    try:
        importlib.import_module("flash_attn")
    except ImportError as error:
        return f"the package flash_attn does not load here ({error})"
    return ""


def choose_name(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    has_dropout: bool = False,
    changes: frozenset[str] = frozenset(),
) -> str:
    """The executor of that name; for "auto" the first of flash_attn, torch_varlen and sdpa that can compute such tensors.

    UserError if the named one cannot.
    """
    if name == "auto":
        return next(one for one in EXECUTORS if not obstacle(one, device, dtype, head_dim, has_dropout, changes))
    if why := obstacle(name, device, dtype, head_dim, has_dropout, changes):
        raise UserError(f"training.s2_executor is {name}, which cannot run here: {why}; choose auto or sdpa.")
    return name


def choose_executor(name: str, query: torch.Tensor, dropout: float = 0.0, change: ScoreChange | None = None) -> Executor:
    """`choose_name` for queries like [..., D]."""
    changes: frozenset[str] = frozenset() if change is None else change.kinds
    device = _REHEARSED if _rehearsing.get() else query.device
    return EXECUTORS[choose_name(name, device, query.dtype, query.shape[-1], dropout > 0, changes)]


def describe_executor(config: Any, training: TrainingParams, device: torch.device) -> str:
    """One line for the log: which executor will compute a model of this `config`, and why not a preferred one.

    UserError if `training.s2_executor` names one that cannot run here.
    """
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    has_dropout = bool(getattr(config, "attention_dropout", 0.0))
    dtype = torch.bfloat16 if training.precision == "bf16" else torch.float32
    changes = changes_of(config)
    chosen = choose_name(training.s2_executor, device, dtype, head_dim, has_dropout, changes)
    if training.s2_executor != "auto":
        return f"attention computed by {chosen}, as set in training.s2_executor"
    passed_over = list(EXECUTORS)[: list(EXECUTORS).index(chosen)]
    reasons = "; ".join(f"not {name}: {obstacle(name, device, dtype, head_dim, has_dropout, changes)}" for name in passed_over)
    return f"attention computed by {chosen}" + (f" ({reasons})" if reasons else "")


def attention_dtype(*tensors: Any) -> torch.dtype:
    """The dtype for attention: autocast's if it is on, because kernels outside torch do not cast by themselves."""
    device = tensors[0].device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensors[0].dtype
