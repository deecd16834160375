"""Tensors that have a device, a type and a shape but no content, so that a GPU's code runs on a machine without a GPU.

They are those of torch's FakeTensorMode. A build of torch for CPUs computes shapes on a fake "cuda" device, but it cannot go
backward there: even the first gradient ends the process. So a forward pass without gradients runs on the fake GPU, and a whole
step on a fake CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint


class ScalarsWithoutContent(TorchDispatchMode):
    """Answers with 1 where the program reads a number from a tensor, since there is none to read."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return True if dtype is torch.bool else 1.0 if dtype.is_floating_point else 1
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Within it, new tensors have no content, on any device; real ones that are met become such tensors."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True), ScalarsWithoutContent():
        yield


class WithoutDriver(TorchFunctionMode):
    """Indexes and copies by other means, because torch's own ask the device's driver first."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__getitem__:
            return _indexed(*args)
        if func is torch.Tensor.__setitem__:
            tensor, index, value = args
            target = _indexed(tensor, index)
            return (
                torch.ops.aten.add.Tensor(target, value) if isinstance(value, torch.Tensor) else target
            )  # shapes and devices fit
        if func is torch.Tensor.copy_:
            args[1].expand(args[0].shape)  # the shape fits; there is no content to copy
            return args[0]
        return func(*args, **(kwargs or {}))


def _indexed(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    aten = torch.ops.aten
    items = list(index) if isinstance(index, tuple) else [index]
    if any(item is Ellipsis for item in items):
        place = next(i for i, item in enumerate(items) if item is Ellipsis)
        taken = sum(item is not None for item in items) - 1
        items[place : place + 1] = [slice(None)] * (tensor.dim() - taken)
    dim, by_tensors = 0, {}
    for item in items:
        if item is None:
            tensor, dim = aten.unsqueeze.default(tensor, dim), dim + 1
        elif isinstance(item, slice):
            if item != slice(None):
                tensor = aten.slice.Tensor(tensor, dim, item.start, item.stop, item.step or 1)
            dim += 1
        elif isinstance(item, torch.Tensor):
            by_tensors[dim] = item
            dim += 1
        else:
            tensor = aten.select.int(tensor, dim, int(item))
    if by_tensors:
        return aten.index.Tensor(tensor, [by_tensors.get(i) for i in range(tensor.dim())])
    return tensor


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """Within it, autocast for "cuda" is on where it is asked for and indexing works, also in a build of torch without CUDA."""
    changed = (
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_bf16_supported", lambda: True),
    )
    with ExitStack() as back:
        for owner, name, pretended in changed:
            back.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, pretended)
        back.enter_context(WithoutDriver())
        yield


def materialise(model: torch.nn.Module, device: torch.device) -> None:
    """Put a model of meta tensors on `device`, in place, within `fake_tensors`; tied weights stay tied."""
    moved: dict[int, torch.Tensor] = {}

    def on_device(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in moved:
            fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            is_weight = isinstance(tensor, torch.nn.Parameter)
            moved[id(tensor)] = torch.nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_weight else fake
        return moved[id(tensor)]

    held = list(model.parameters()) + list(model.buffers())  # keeps them alive, so that no id comes twice
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = on_device(tensor)  # type: ignore[assignment]
    del held


def offload_out_of_sight(model: torch.nn.Module) -> None:
    """Make checkpointed layers keep only their inputs' shapes: on a fake CPU, an input moved to the CPU would still count."""

    def offloaded(layer: Callable[..., Any], *inputs: Any) -> Any:
        with saved_tensors_hooks(
            lambda t: (t.shape, t.dtype, t.device), lambda kept: torch.empty(kept[0], dtype=kept[1], device=kept[2])
        ):
            return checkpoint(layer, *inputs, use_reentrant=False)

    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = offloaded  # type: ignore[assignment]


@contextmanager
def fake_process_group(num_workers: int, rank: int = 0) -> Iterator[None]:
    """A process group of `num_workers` ranks, of which this process is the one of that number and the others do not exist."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if num_workers == 1:
        yield
        return
    dist.init_process_group("fake", rank=rank, world_size=num_workers, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
