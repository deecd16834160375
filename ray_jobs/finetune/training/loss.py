"""Next-token loss over long rows without holding all logits.

Logits of 128k tokens over a vocabulary of 128k are 67 GB in float32. Every kernel here holds only those of `chunk_tokens` tokens:

torch    F.linear_cross_entropy (torch 2.13), in float32
liger    Liger's fused linear cross entropy (GPU, package liger_kernel)
chunked  Ropeway's own, for any torch: products in autocast's dtype, sums in float32; for an output layer that is more than linear
         (with LoRA), the logits of a chunk are recomputed in the backward pass; the only one that can weight tokens

Except in that last case, gradients are computed together with the loss, so nothing is computed twice.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from data_schemas.errors import UserError
from ray_jobs.finetune.training.chunked_loss import IGNORED, LinearCrossEntropy, LossSums, Weigh, recomputed_loss


def next_token_targets(input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
    """[T] targets of a packed row: the next token, ignored at the last token of each document.

    `input_ids` and `position_ids` are [T]; a document's first token is never a target.
    """
    targets = torch.full_like(input_ids, IGNORED)
    goes_on = position_ids[1:] > position_ids[:-1]  # a document may skip positions
    targets[:-1] = torch.where(goes_on, input_ids[1:], IGNORED)
    return targets


def summed_cross_entropy(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden_TE: torch.Tensor,
    targets_T: torch.Tensor,
    chunk_tokens: int,
    kernel: str = "auto",
) -> torch.Tensor:
    """Sum (not mean) of -log p(target) in nats, float32 or wider, over the targets that are not ignored.

    `head` maps hidden states [t, E] to logits [t, V]. UserError if `kernel` cannot be used; see `choose_kernel`.
    """
    linear, dtype = plain_linear(head), compute_dtype(hidden_TE)
    chosen = choose_kernel(kernel, linear is not None, hidden_TE.device, dtype)
    if linear is None:
        return recomputed_loss(head, hidden_TE, targets_T, chunk_tokens).weighted
    if chosen == "torch":
        return _torch_kernel(hidden_TE.to(dtype), linear.weight, linear.bias, targets_T, chunk_tokens)
    if chosen == "liger":
        return _liger_kernel(hidden_TE.to(dtype), linear.weight.to(dtype), linear.bias, targets_T)
    loss: torch.Tensor = LinearCrossEntropy.apply(hidden_TE, linear.weight, linear.bias, targets_T, chunk_tokens, dtype, None)[
        0
    ]
    return loss


def weighted_cross_entropy(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden_TE: torch.Tensor,
    targets_T: torch.Tensor,
    chunk_tokens: int,
    weigh: Weigh,
) -> LossSums:
    """Sum of weight times -log p(target), with the plain sum and the sum of the weights, over the targets that are not ignored.

    Always Ropeway's own kernel, since the libraries' kernels do not weight tokens.
    """
    linear = plain_linear(head)
    if linear is None:
        return recomputed_loss(head, hidden_TE, targets_T, chunk_tokens, weigh)
    dtype = compute_dtype(hidden_TE)
    return LossSums(*LinearCrossEntropy.apply(hidden_TE, linear.weight, linear.bias, targets_T, chunk_tokens, dtype, weigh))


def plain_linear(head: Any) -> torch.nn.Linear | None:
    """`head` as a linear layer, also if peft wraps it for training in full; None if it computes more than that."""
    from peft.utils.other import ModulesToSaveWrapper

    if isinstance(head, ModulesToSaveWrapper):
        head = head.modules_to_save[head.active_adapters[0]] if head.active_adapters else head.original_module
    return head if type(head) is torch.nn.Linear else None


def choose_kernel(name: str, is_linear: bool, device: torch.device, dtype: torch.dtype) -> str:
    """The kernel of that name; UserError if it cannot be used. "auto" is torch's in float32, else Liger's, else chunked.

    Library kernels need a plain linear output layer (`is_linear`), not one with LoRA.
    """
    absent: dict[str, str | None] = {
        "torch": None if hasattr(F, "linear_cross_entropy") else f"torch {torch.__version__} has no linear_cross_entropy",
        "liger": _why_no_liger(device),
        "chunked": None,
    }
    if not is_linear:
        reason = "the output layer is not a plain linear layer"
        absent.update(torch=absent["torch"] or reason, liger=absent["liger"] or reason)
    if name == "auto":
        wide = dtype in (torch.float32, torch.float64)  # torch's kernel sums the loss in bfloat16, to 2 digits
        return next(kernel for kernel, reason in absent.items() if reason is None and (wide or kernel != "torch"))
    if (why := absent[name]) is not None:
        raise UserError(f"training.loss_kernel is {name}, but {why}: choose auto or chunked.")
    return name


def _why_no_liger(device: torch.device) -> str | None:
    if importlib.util.find_spec("liger_kernel") is None:
        return "the package liger_kernel is not installed"
    return None if device.type == "cuda" else "its kernels need a GPU"


def compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    """The dtype to which autocast would cast a linear layer's inputs; autocast does not know these kernels."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _torch_kernel(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, chunk_tokens: int
) -> torch.Tensor:
    wide = torch.promote_types(hidden.dtype, torch.float32)  # it sums the loss in its input's type: in bfloat16, to 2 digits
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk_tokens, chunking_method=None)
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear_cross_entropy(
            hidden.to(wide),
            weight.to(wide),
            targets,
            linear_bias=None if bias is None else bias.to(wide),
            reduction="sum",
            ignore_index=IGNORED,
            options=options,
        )


def _liger_kernel(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor:
    """Liger chooses its own chunk size: a chunk's logits are about as large as the hidden states.

    Its kernels may count elements in 32 bits, so each call gets fewer than 2^31.
    """
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED, reduction="sum", accum_dtype=torch.float32)
    most = (2**31 - 1) // hidden.shape[1]
    parts = zip(hidden.split(most), targets.split(most), strict=True)
    return torch.stack([loss(weight, part, of_part, bias).float() for part, of_part in parts]).sum()
