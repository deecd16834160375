"""The training loop: plain torch, told its rank, world size and how to report; it needs neither Ray nor Prefect.

    step = rows_per_step rows, dealt to the ranks by what they cost
    for each micro batch:  hidden states with S2-Attn -> summed loss / tokens of the whole step -> backward
    sum gradients over ranks, clip, AdamW, now and then validate on full attention and save a checkpoint

Dividing every micro batch's summed loss by the tokens of the whole step makes loss and gradients independent of how the rows
are split into ranks and micro batches.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.attention import S2_ATTENTION, register_s2_attention
from ray_jobs.finetune.base_model import load_base
from ray_jobs.finetune.batches import (
    MicroBatch,
    Rows,
    StepOrder,
    costs_of_rows,
    num_targets,
    read_micro_batch,
    rows_of_rank,
    rows_of_step,
)
from ray_jobs.finetune.checkpoint import Cursor, load_checkpoint, save_checkpoint
from ray_jobs.finetune.extended import extended_config
from ray_jobs.finetune.lora import add_trainable_weights, is_lora, trainable
from ray_jobs.finetune.loss import next_token_targets, summed_cross_entropy
from ray_jobs.finetune.schedule import learning_rate_scale

if TYPE_CHECKING:
    from peft import PeftModel

Report = Callable[[dict[str, Any], Path | None], None]


@dataclass(frozen=True)
class Worker:
    """This process's place in the run."""

    rank: int
    world_size: int
    device: torch.device


def build_model(params: PipelineParams, device: torch.device) -> PeftModel:
    """The extended base with trainable weights added, in training attention, on `device`; the same on every rank."""
    training = params.training
    register_s2_attention()
    config = extended_config(params.model)
    _refuse_other_objectives(config)
    config.s2_executor = training.s2_executor
    torch.manual_seed(training.seed)
    dtype = "auto" if training.precision == "bf16" and device.type == "cuda" else torch.float32
    base = load_base(params.model, config=config, dtype=dtype, attention=S2_ATTENTION)
    if training.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = add_trainable_weights(base, training).to(device)
    set_group_size(model, group_size_at(0, params))
    return model


def _refuse_other_objectives(config: Any) -> None:
    """UserError for models that change logits behind the output layer: the loss here takes that layer's own."""
    for name in ("logit_scale", "logits_scaling", "final_logit_softcapping"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise UserError(
                f"The base sets {name}, which training does not compute: choose a base without it, such as a Llama or Qwen model."
            )


def group_size_at(step: int, params: PipelineParams) -> int:
    """Group size of S2-Attn at a step. Groups twice as long as a row are full attention within documents, exactly."""
    training, target = params.training, params.model.target_length
    if training.attention == "full" or step >= training.steps - training.full_attention_steps:
        return 2 * target
    return training.s2_group_size or target // 4


def set_group_size(model: torch.nn.Module, group_size: int) -> None:
    """Make every attention layer use groups of `group_size` tokens from now on."""
    for module in model.modules():
        if hasattr(module, "is_causal"):
            config: Any = module.config
            config.s2_group_size = group_size


def build_optimizer(model: torch.nn.Module, training: TrainingParams) -> torch.optim.Optimizer:
    """AdamW with one group for LoRA and one, without decay and slower by default, for norms and embeddings."""
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
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.95), fused=True)


def autocast(training: TrainingParams, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if training.precision == "bf16" else contextlib.nullcontext()


def summed_loss(model: PeftModel, batch: MicroBatch, chunk_tokens: int) -> torch.Tensor:
    """Sum of the loss over the micro batch's targets, in nats, without all logits at once."""
    causal_lm: Any = model.get_base_model()
    backbone = getattr(causal_lm, causal_lm.base_model_prefix)
    hidden = backbone(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).last_hidden_state
    targets = next_token_targets(batch.input_ids[0], batch.position_ids[0])
    return summed_cross_entropy(causal_lm.get_output_embeddings(), hidden[0], targets, chunk_tokens)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module, *, sparse: bool) -> Iterator[None]:
    """Evaluation mode without gradients; with `sparse`, attention layers alone stay in training mode, so S2-Attn is measured."""
    model.eval()
    try:
        if sparse:
            for module in model.modules():
                if hasattr(module, "is_causal"):
                    module.training = True  # this module only: dropout below it stays off
        with torch.no_grad():
            yield
    finally:
        model.train()


def validate(model: PeftModel, rows: Rows, params: PipelineParams, worker: Worker) -> dict[str, float]:
    """Mean held-out loss with full attention, and with S2-Attn where that is trained; the gap is what S2-Attn leaves out."""
    training = params.training
    indices = rows_of_step(0, min(training.validation_rows, len(rows)), len(rows), seed=0)
    mine = indices[worker.rank :: worker.world_size]
    kinds = {"validation_loss": False} | ({"s2_validation_loss": True} if training.attention == "s2" else {})
    sums = torch.zeros(len(kinds), dtype=torch.float64)
    set_group_size(model, group_size_at(0, params))
    for column, sparse in enumerate(kinds.values()):
        with evaluating(model, sparse=sparse), autocast(training, worker.device):
            for index in mine:
                batch = read_micro_batch(rows, [index], worker.device)
                sums[column] += summed_loss(model, batch, training.loss_chunk_tokens).item()
    _sum_over_ranks([sums], worker)
    total = num_targets(rows, indices)
    return {name: sums[column].item() / total for column, name in enumerate(kinds)}


def train(
    params: PipelineParams,
    train_rows: Rows,
    heldout_rows: Rows,
    worker: Worker,
    report: Report,
    resume_from: Path | None,
    scratch: Path,
) -> PeftModel:
    """Train to `params.training.steps` and return the model, still wrapped.

    `report(metrics, checkpoint_dir)` is called on every rank, equally often; only rank 0 passes a checkpoint, which the callee
    owns from then on and which is first written below `scratch`. UserError when the loss or a gradient is not finite, naming the rows.
    """
    training = params.training
    model = build_model(params, worker.device).train()
    optimizer = build_optimizer(model, training)
    first = load_checkpoint(resume_from, model, optimizer).step if resume_from else 0
    order = step_order(params, train_rows)
    for step in range(first, training.steps):
        started = time.perf_counter()
        metrics = train_step(model, optimizer, params, train_rows, order.rows(step), step, worker)
        done = step + 1
        metrics |= {"step": done, "seconds": time.perf_counter() - started}
        if done % training.validate_every == 0 or done == training.steps:
            metrics |= validate(model, heldout_rows, params, worker)
        directory = None
        if (done % training.checkpoint_every == 0 or done == training.steps) and worker.rank == 0:
            directory = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=scratch))
            save_checkpoint(directory, model, optimizer, Cursor(step=done))
            if done == training.steps:
                model.save_pretrained(str(directory / "adapter"))
        report(metrics, directory)
    return model


def step_order(params: PipelineParams, rows: Rows) -> StepOrder:
    """Which rows form each step; with `balance_steps`, rows of like cost meet."""
    training = params.training
    window = training.balance_steps
    costs = costs_of_rows(rows, range(len(rows)), group_size_at(0, params)) if window > 1 else None
    return StepOrder(len(rows), training.rows_per_step, training.seed, costs, window)


def train_step(
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    params: PipelineParams,
    rows: Rows,
    indices: list[int],
    step: int,
    worker: Worker,
) -> dict[str, Any]:
    """One optimizer step on the rows `indices`; returns loss (nats a token), gradient norm before clipping, learning rate and tokens."""
    training = params.training
    targets = num_targets(rows, indices)
    scale = learning_rate_scale(step, training.steps, training.warmup_steps, training.schedule)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
    torch.manual_seed((training.seed * 1_000_003 + step) * 4099 + worker.rank)
    group_size = group_size_at(step, params)
    set_group_size(model, group_size)
    optimizer.zero_grad(set_to_none=False)
    loss = torch.zeros((), dtype=torch.float64)
    costs = costs_of_rows(rows, indices, group_size)
    for micro in rows_of_rank(indices, worker.rank, worker.world_size, training.micro_batch_rows, costs):
        batch = read_micro_batch(rows, micro, worker.device)
        with autocast(training, worker.device):
            part = summed_loss(model, batch, training.loss_chunk_tokens) / targets
        part.backward()
        loss += part.item()
    weights = [p for _, p in trainable(model)]
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    _sum_over_ranks([*(w.grad for w in weights if w.grad is not None), loss], worker)
    norm = torch.nn.utils.clip_grad_norm_(weights, training.max_grad_norm).item()
    if not (math.isfinite(loss.item()) and math.isfinite(norm)):
        ids = [str(c) for i in indices for c in rows.chunk_ids(i)][:8]
        raise UserError(
            f"Training stopped at step {step + 1}: the loss is {loss.item()} and the gradient norm {norm}, on chunks {', '.join(ids)}; "
            "lower training.learning_rate, or look at those chunks."
        )
    optimizer.step()
    tokens = sum(len(rows.row(i)["input_ids"]) for i in indices)
    return {"loss": loss.item(), "grad_norm": norm, "learning_rate": training.learning_rate * scale, "tokens": tokens}


def _sum_over_ranks(tensors: list[torch.Tensor], worker: Worker) -> None:
    """Sum in place over all ranks, in few messages."""
    if worker.world_size == 1:
        return
    for dtype in sorted({t.dtype for t in tensors}, key=str):
        same = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.flatten().to(worker.device) for t in same])
        dist.all_reduce(flat)
        for tensor, part in zip(same, flat.split([t.numel() for t in same]), strict=True):
            tensor.copy_(part.view_as(tensor))
