"""What a step holds and sends, counted operation by operation: bytes of living tensors, their peak, and bytes between workers.

torch's own `torch.distributed._tools.mem_tracker` refuses models with frozen weights, which LoRA has.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"
FORWARD, BACKWARD = "made in the forward pass", "made in the backward pass"


class Ledger(TorchDispatchMode):
    """Counts, while it is entered, every tensor that an operation makes until it is freed, by the part it was made in."""

    def __init__(self, num_workers: int = 1, num_sharing: int = 1) -> None:
        super().__init__()
        self.num_operations = 0
        self.peak_bytes = 0
        self.peak_parts: dict[str, int] = {}
        self.sent_bytes: Counter[str] = Counter()  # by one worker, by collective operation
        self._parts: Counter[str] = Counter()
        self._now = 0
        self._held: dict[int, tuple[weakref.ref[Any], str, int]] = {}
        self._num_workers, self._num_sharing = num_workers, num_sharing

    def count(self, tensors: Iterable[torch.Tensor], part: str) -> None:
        """Enter tensors that exist already."""
        for tensor in tensors:
            self._enter(_local(tensor).untyped_storage(), part)

    def __enter__(self) -> Ledger:
        resize = torch.UntypedStorage.resize_

        def counted(storage: Any, size: int) -> Any:  # FSDP frees and takes back gathered weights in this way
            found = resize(storage, size)
            self._resized(storage)
            return found

        self._resize = resize
        torch.UntypedStorage.resize_ = counted  # type: ignore[method-assign,assignment]
        super().__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*failure)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.distributed.tensor import DTensor

        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it computes with its local tensors, which come here in their turn
        found = func(*args, **(kwargs or {}))
        self.num_operations += 1
        if func.namespace == "c10d":
            self._send(func, args)
        part = BACKWARD if torch._C._current_graph_task_id() != -1 else FORWARD
        for tensor in tree_iter(found):
            if isinstance(tensor, torch.Tensor):
                self._enter(tensor.untyped_storage(), part)
        return found

    def _enter(self, storage: Any, part: str) -> None:
        key = id(storage)
        if key not in self._held:
            self._held[key] = (weakref.ref(storage, lambda _: self._leave(key)), part, 0)
            self._change(key, storage.nbytes())

    def _leave(self, key: int) -> None:
        self._change(key, 0)
        del self._held[key]

    def _resized(self, storage: Any) -> None:
        if id(storage) in self._held:
            self._change(id(storage), storage.nbytes())

    def _change(self, key: int, num_bytes: int) -> None:
        reference, part, before = self._held[key]
        self._held[key] = (reference, part, num_bytes)
        self._parts[part] += num_bytes - before
        self._now += num_bytes - before
        if self._now > self.peak_bytes:
            self.peak_bytes, self.peak_parts = self._now, dict(self._parts)

    def _send(self, func: Any, args: Any) -> None:
        """Bytes that one of N workers sends in a ring: (N - 1) / N of what is gathered or reduced, twice that for an all-reduce;
        and all that is sent from one worker to another."""
        name = func._opname.strip("_")
        share = (self._num_workers - 1) / self._num_workers
        if "allgather" in name:
            self.sent_bytes["all-gather"] += round(share * num_bytes(args[0]))
        elif "reduce_scatter" in name:
            self.sent_bytes["reduce-scatter"] += round(share * num_bytes(args[1]))
        elif "allreduce" in name:
            self.sent_bytes["all-reduce"] += round(2 * share * num_bytes(args[0]))
        elif name == "send":
            self.sent_bytes["keys and values of a row, and gradients"] += num_bytes(args[0])
        elif "alltoall" in name:  # among the workers that share a row
            self.sent_bytes["heads for tokens"] += round(num_bytes(args[1]) * (self._num_sharing - 1) / self._num_sharing)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def num_bytes(tensors: Any) -> int:
    """Of all tensors in nested lists, tuples and dictionaries."""
    return sum(t.numel() * t.element_size() for t in tree_iter(tensors) if isinstance(t, torch.Tensor))
