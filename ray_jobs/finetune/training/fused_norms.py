"""RMS norms by Liger's fused kernel (Hsu et al. 2024, arXiv 2410.10989), which reads and writes hidden states once.

There are two formulas, with x normalised to a root mean square of 1, and Liger has both:

llama    weight * x, with x rounded to the input's type before
gemma    (1 + weight) * x in float32, rounded after

Which one a model's norm computes is found by trying it, also on a model without weights. A norm that is given more than hidden states,
such as the gated ones of some hybrids, keeps the model's own code. The output has the input's type. It is off by default: it has not run on
a GPU yet.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from data_schemas.errors import UserError

FORMULAS = {"llama": 0.0, "gemma": 1.0}  # what is added to the weight
_CLOSE = 1e-5

FusedNorm = Callable[[torch.Tensor, torch.Tensor, float, float, str, bool], torch.Tensor]
"""(hidden states [..., E], weight [E], epsilon, what is added to the weight, formula, whether to write into the input)"""


def fuse_norms(model: torch.nn.Module, kernel: FusedNorm | None = None) -> None:
    """Make every RMS norm of `model` that is given hidden states alone compute with `kernel`, in place; Liger's by default.

    UserError for a norm of another formula, and for a model without such norms.
    """
    formulas = formulas_of(model)
    fused = kernel or _liger()
    for norm in _norms(model):
        if type(norm) not in formulas:
            continue
        norm.forward = partial(_forward, norm, fused, formulas[type(norm)])  # type: ignore[method-assign]


def formulas_of(model: torch.nn.Module) -> dict[type, str]:
    """By each class of RMS norms that can be fused the formula; weights may be without content. UserError as in `fuse_norms`."""
    first: dict[type, torch.nn.Module] = {}
    for norm in _norms(model):
        if not _is_given_more(norm):
            first.setdefault(type(norm), norm)
    if not first:
        raise UserError(
            f"training.norm_kernel liger needs a model with RMS norms, and {_name(model)} has none"
            f"{' but ' + ', '.join(left) + ', which are given more than hidden states' if (left := _left_alone(model)) else ''}: "
            "set it to torch."
        )
    return {kind: formula_of(norm) for kind, norm in first.items()}


def describe_norms(model: torch.nn.Module) -> str:
    """One line: which norms Liger computes, and which keep the model's own code. UserError as in `fuse_norms`."""
    fused = ", ".join(sorted(kind.__name__ for kind in formulas_of(model)))
    left = _left_alone(model)
    alone = f"; {', '.join(left)} by the model's own code, as it is given more than hidden states" if left else ""
    return f"{fused} by Liger's kernel{alone}"


def _left_alone(model: torch.nn.Module) -> list[str]:
    return sorted({type(norm).__name__ for norm in _norms(model) if _is_given_more(norm)})


def _is_given_more(norm: torch.nn.Module) -> bool:
    """Whether its forward takes more than hidden states."""
    return len(inspect.signature(type(norm).forward).parameters) != 2  # itself and hidden states


def _norms(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in model.modules() if "RMSNorm" in type(module).__name__]


def formula_of(norm: torch.nn.Module) -> str:
    """The name of its formula, by trying it with random weights. UserError if it is neither."""
    tried: Any = copy.deepcopy(norm).to_empty(device="cpu").float()
    weight, epsilon = getattr(tried, "weight", None), epsilon_of(tried)
    if weight is not None and epsilon is not None:
        generator = torch.Generator().manual_seed(0)
        weight.data.copy_(torch.rand(weight.shape, generator=generator))
        hidden = torch.randn(3, weight.numel(), generator=generator)
        normalised = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon)
        with torch.no_grad():
            found = tried.forward(hidden)  # without hooks, which may round the output
        for name, added in FORMULAS.items():
            if torch.allclose(found, normalised * (added + weight.detach()), atol=_CLOSE):
                return name
    raise UserError(
        f"training.norm_kernel liger does not compute {type(norm).__name__}, which is neither Llama's nor Gemma's norm: set it to torch."
    )


def epsilon_of(norm: Any) -> float | None:
    """What is added to the mean square; None for a norm that does not say."""
    return next((float(getattr(norm, name)) for name in ("variance_epsilon", "eps") if hasattr(norm, name)), None)


def _forward(norm: Any, fused: FusedNorm, formula: str, hidden: torch.Tensor) -> torch.Tensor:
    epsilon = epsilon_of(norm)
    assert epsilon is not None  # `formula_of` found it
    return fused(hidden, norm.weight, epsilon, FORMULAS[formula], formula, False)


def _liger() -> FusedNorm:
    try:
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    except ImportError as error:
        raise UserError(
            "training.norm_kernel liger needs the package liger_kernel, which is not installed: install it, or set it to torch."
        ) from error
    apply: FusedNorm = LigerRMSNormFunction.apply
    return apply


def _name(model: Any) -> str:
    return type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
