"""Layer inputs that wait in the CPU's memory, copied while the GPU computes.

Forward, a layer's input is copied away on a stream of its own while the layer computes. Backward, the input of the layer before is
copied back while a layer is recomputed, so that it is there when its turn comes. Two inputs are on the GPU at a time (ZeRO-Infinity,
Rajbhandari et al. 2021, arXiv 2104.07857, section 5, overlaps its copies so). Copies are of the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from data_schemas.errors import UserError

_FEWEST_BYTES = 1 << 16  # smaller tensors, such as positions, stay where they are


class Copies(Protocol):
    """Copies that may run beside the computation; what they return is waited for before it is used."""

    def away(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in the CPU's memory."""
        ...

    def back(self, kept: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, Any]:
        """(a copy on `device`, what `wait` needs)."""
        ...

    def wait(self, tensor: torch.Tensor, event: Any) -> None:
        """The computation goes on only when `tensor` is there."""
        ...


class OwnStream:
    """Copies on a CUDA stream of their own, from and to pinned memory."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    def _own(self) -> torch.cuda.Stream:
        self._stream = self._stream or torch.cuda.Stream()
        return self._stream

    def away(self, tensor: torch.Tensor) -> torch.Tensor:
        stream = self._own()
        stream.wait_stream(torch.cuda.current_stream())  # until the input is computed
        with torch.cuda.stream(stream):
            kept = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
            kept.copy_(tensor, non_blocking=True)
        tensor.record_stream(stream)  # its memory is not given away before it is copied
        return kept

    def back(self, kept: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.cuda.Event]:
        stream = self._own()
        with torch.cuda.stream(stream):  # after the copy away, which is on the same stream
            tensor = kept.to(device, non_blocking=True)
            event = stream.record_event()
        return tensor, event

    def wait(self, tensor: torch.Tensor, event: torch.cuda.Event) -> None:
        current = torch.cuda.current_stream()
        current.wait_event(event)
        tensor.record_stream(current)  # it was allocated on the other stream


class OnTheSpot:
    """Copies that are done when they return: for devices without streams."""

    def away(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to("cpu", copy=True)

    def back(self, kept: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, None]:
        return kept.to(device), None

    def wait(self, tensor: torch.Tensor, event: None) -> None:
        pass


@dataclass
class _Kept:
    """A tensor in the CPU's memory, its copy on the device once that is under way, and what was kept before it."""

    tensor: torch.Tensor
    device: torch.device
    before: _Kept | None
    copy: tuple[torch.Tensor, Any] | None = None


class Offloader:
    """Moves what is saved for the backward pass; backward takes it in the reverse order."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._last: _Kept | None = None

    def hooks(self) -> saved_tensors_hooks:
        """While entered, saved tensors are moved."""
        return saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor | _Kept:
        if tensor.numel() * tensor.element_size() < _FEWEST_BYTES or not tensor.is_floating_point():
            return tensor
        self._last = _Kept(self._copies.away(tensor), tensor.device, self._last)
        return self._last

    def _unpack(self, kept: torch.Tensor | _Kept) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        self._last = None  # the next forward pass begins anew
        tensor, event = kept.copy or self._copies.back(kept.tensor, kept.device)
        self._copies.wait(tensor, event)
        if kept.before is not None and kept.before.copy is None:
            kept.before.copy = self._copies.back(kept.before.tensor, kept.before.device)
        kept.copy = kept.before = None
        return tensor


def offload_layer_inputs(model: torch.nn.Module, copies: Copies | None = None) -> None:
    """Make every checkpointed layer of a transformers model keep its input on the CPU. UserError without checkpointing."""
    offloader = Offloader(copies or (OwnStream() if torch.cuda.is_available() else OnTheSpot()))

    def offloaded(layer: Callable[..., Any], *inputs: Any) -> Any:
        # The hooks apply only to what `checkpoint` itself saves, the inputs. Inside, its own hooks come first.
        with offloader.hooks():
            return checkpoint(layer, *inputs, use_reentrant=False)

    checkpointed: list[Any] = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    if not checkpointed:
        raise UserError(
            "training.activation_offload needs recomputed layers, whose inputs it moves: set training.gradient_checkpointing too."
        )
    for module in checkpointed:
        module._gradient_checkpointing_func = offloaded
