"""Optimizers by name, over float32 master weights."""

from __future__ import annotations

import importlib.util

import torch

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.lora import is_lora, trainable

BETAS = (0.9, 0.95)


def build_optimizer(model: torch.nn.Module, training: TrainingParams) -> torch.optim.Optimizer:
    """One group for LoRA and one, without decay and slower by default, for norms and embeddings.

    UserError for adamw_8bit without bitsandbytes, without a GPU, or with FSDP.
    """
    weights = trainable(model)
    full_rate = training.full_weight_learning_rate or training.learning_rate / 10
    groups = [
        {
            "params": [p for n, p in weights if is_lora(n)],
            "peak": training.learning_rate,
            "weight_decay": training.weight_decay,
        },
        {"params": [p for n, p in weights if not is_lora(n)], "peak": full_rate, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=BETAS, fused=True)
    _refuse_8bit(training, weights[0][1].device)
    from bitsandbytes.optim import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(groups, betas=BETAS)
    return optimizer


def _refuse_8bit(training: TrainingParams, device: torch.device) -> None:
    reason = None
    if training.parallelism == "fsdp":
        reason = "cannot be cut over workers: set training.parallelism to ddp"
    elif importlib.util.find_spec("bitsandbytes") is None:
        reason = "needs the package bitsandbytes, which is not installed: install it"
    elif device.type != "cuda":
        reason = "needs a GPU: set ray.use_gpu"
    if reason:
        raise UserError(f"training.optimizer adamw_8bit {reason}, or choose adamw.")


def clip_gradients(weights: list[torch.nn.Parameter], max_norm: float) -> float:
    """Scale all gradients, in place, so that their common norm is at most `max_norm`; returns the norm before, the same on all ranks."""
    norm = torch.nn.utils.clip_grad_norm_(weights, max_norm)
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return float(whole.item())
