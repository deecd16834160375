"""The optimizer, gradient clipping, and the learning rate as a function of the step."""

from __future__ import annotations

import importlib.util
import math
from typing import Literal

import torch

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.training.lora import is_lora, is_magnitude, trainable
from tasks.model.optional_imports import bitsandbytes_functional

BETAS = (0.9, 0.95)


def build_optimizer(model: torch.nn.Module, training: TrainingParams) -> torch.optim.Optimizer:
    """One group for LoRA, one for DoRA's lengths without weight decay, and one for norms and embeddings without weight decay and with
    a lower default learning rate.

    UserError for adamw_8bit without bitsandbytes. The parameters refuse it without a GPU and with FSDP.
    """
    weights = trainable(model)
    full_rate = training.full_weight_learning_rate or training.learning_rate / 10
    groups = [
        {
            "params": [p for n, p in weights if is_lora(n) and not is_magnitude(n)],
            "peak": training.learning_rate,
            "weight_decay": training.weight_decay,
        },
        {"params": [p for n, p in weights if is_magnitude(n)], "peak": training.learning_rate, "weight_decay": 0.0},
        {"params": [p for n, p in weights if not is_lora(n)], "peak": full_rate, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=BETAS, fused=True)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "training.optimizer adamw_8bit needs the package bitsandbytes, which is not installed: install it, or choose adamw."
        )
    bitsandbytes_functional()  # without its notice of missing kernels
    from bitsandbytes.optim import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(groups, betas=BETAS)
    return optimizer


def clip_gradients(weights: list[torch.nn.Parameter], max_norm: float) -> float:
    """Scale all gradients in place to a total norm of at most `max_norm`; returns the norm before, the same on all ranks."""
    norm = torch.nn.utils.clip_grad_norm_(weights, max_norm)
    return float((norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item())


def learning_rate_scale(step: int, steps: int, warmup_steps: int, shape: Literal["cosine", "linear", "constant"]) -> float:
    """Factor on the peak learning rate at `step` (0-based): linear warm-up, then the shape down to 0 after `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if shape == "constant":
        return 1.0
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done)) if shape == "cosine" else 1.0 - done
