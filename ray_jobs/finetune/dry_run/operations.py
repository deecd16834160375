"""Floating-point operations of a step, by torch's formulas, which do not know the segments of variable-length attention."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ray_jobs.finetune import executors
from ray_jobs.finetune.dry_run.ledger import num_bytes
from ray_jobs.finetune.segments import Segments


class AttentionPairs:
    """Remembers, while it is entered, how many pairs of query and key the segments of each kernel call have.

    The kernel itself only sees boundaries without content.
    """

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, int], float] = {}  # by number of boundaries and longest segment
        self._kernel: executors.Executor | None = None

    def of(self, cu_seqlens: torch.Tensor, longest: int) -> float:
        """Causal pairs of a call."""
        return self._pairs[cu_seqlens.numel(), longest]

    def __enter__(self) -> AttentionPairs:
        kernel = executors.EXECUTORS["torch_varlen"]

        def remembering(
            query: Any, key: Any, value: Any, segments: Segments, scale: float, *more: Any, **named: Any
        ) -> torch.Tensor:
            window = named.get("window", more[1] if len(more) > 1 else None)
            ends = zip(segments.bounds, segments.bounds[1:], strict=False)
            self._pairs[len(segments.bounds), segments.max_length] = sum(_causal_pairs(b - a, window) for a, b in ends)
            return kernel(query, key, value, segments, scale, *more, **named)

        self._kernel = kernel
        executors.EXECUTORS["torch_varlen"] = cast(executors.Executor, remembering)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        assert self._kernel is not None
        executors.EXECUTORS["torch_varlen"] = self._kernel


def _causal_pairs(length: int, window: int | None) -> float:
    reach = min(length, window or length)
    return reach * (reach + 1) / 2 + (length - reach) * reach


_WITH_KERNELS = {"aten", "torch_attn"}
_NO_KERNEL = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach", "_unsafe_view", "lift_fresh"}


class OperationCounter(TorchDispatchMode):
    """torch's formulas, and for attention over segments 4 D a pair and head forward, 10 D backward, which recomputes the scores.

    torch's own `FlopCounterMode` also tracks modules, which keeps recomputed tensors alive: memory could not be counted beside it.
    """

    def __init__(self, pairs: AttentionPairs) -> None:
        super().__init__()
        self.matrix_flops = 0.0
        self.attention_flops = 0.0
        self.kernels: Counter[str] = Counter()  # by operation
        self.moved_bytes: Counter[str] = Counter()
        self._pairs = pairs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.distributed.tensor import DTensor

        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it computes with its local tensors, which come here in their turn
        found = func(*args, **(kwargs or {}))
        if func.namespace in _WITH_KERNELS and not (func.is_view or func._opname in _NO_KERNEL):
            self.kernels[func._opname] += 1
            self.moved_bytes[func._opname] += num_bytes((args, kwargs)) + num_bytes(found)
        if "varlen_attn" in func._opname:
            is_backward = "backward" in func._opname
            query, boundaries, longest = (args[1], args[6], args[8]) if is_backward else (args[0], args[3], args[5])
            each = (10 if is_backward else 4) * query.shape[1] * query.shape[2]
            self.attention_flops += each * self._pairs.of(boundaries, longest)
        elif (formula := flop_registry.get(func._overloadpacket)) is not None:
            flops = formula(*args, **(kwargs or {}), out_val=found)
            if "attention" in func._opname:
                self.attention_flops += flops
            else:
                self.matrix_flops += flops
        return found
