"""`ropeway plan --dry-run`: the real training step of the user's model and cluster, on tensors without content.

1. A forward pass in training and one in validation on a fake GPU, if `ray.use_gpu`: finds tensors on another device, wrong types
   and wrong shapes.
2. One whole step (`ray_jobs.finetune.training.steps.train_step`) with gradients and AdamW, on a fake CPU with the GPU's types and
   its attention kernel, in a fake process group of `ray.num_workers` ranks: counts memory, operations and bytes sent.

What only exists on a GPU is replaced: Liger's and bitsandbytes' kernels by Ropeway's and torch's, flash_attn by torch's kernel of
the same algorithm.
"""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.dry_run.fake_device import (
    fake_process_group,
    fake_tensors,
    materialise,
    offload_out_of_sight,
    pretended_cuda,
)
from ray_jobs.finetune.dry_run.ledger import GRADIENTS, OPTIMIZER, WEIGHTS, Ledger
from ray_jobs.finetune.dry_run.operations import AttentionPairs, OperationCounter
from ray_jobs.finetune.executors import rehearsing_gpu
from ray_jobs.finetune.planning.memory import MemoryEstimate, predict_memory
from ray_jobs.finetune.planning.shape import TrainingShape
from ray_jobs.finetune.training.distributed import Worker, mesh_of, shard
from ray_jobs.finetune.training.row_parts import sequence_link


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What one micro batch on each worker, and then the optimizer's step, would hold, compute and send."""

    tokens: int  # in a micro batch
    num_workers: int
    checked_on_gpu: bool
    peak_bytes: int
    parts: dict[str, int]  # bytes at the peak
    predicted: MemoryEstimate  # by `plan`'s formula, without what CUDA itself needs
    matrix_flops: float  # of one worker, with recomputed layers
    attention_flops: float
    needed_flops: float  # without recomputed layers, as `plan` counts them
    sent_bytes: dict[str, int]  # by one worker
    kernels: dict[str, int]  # operations that compute or copy, as they are called without torch.compile, by name
    kernel_bytes: dict[str, int]  # that these read and write
    seconds: float
    notes: tuple[str, ...] = field(default=())

    @property
    def ratio(self) -> float:
        """The formula's bytes over the counted ones."""
        return self.predicted.total / self.peak_bytes


class FullRows:
    """Rows of one document each that fills its row, the most that training holds at a time."""

    def __init__(self, num_rows: int, tokens: int) -> None:
        self._num_rows = num_rows
        self._row = {"input_ids": np.zeros(tokens, np.int32), "seq_lengths": np.array([tokens], np.int32)}

    def __len__(self) -> int:
        return self._num_rows

    def row(self, index: int) -> dict[str, np.ndarray]:
        return self._row

    def chunk_ids(self, index: int) -> list[str]:
        return [f"document-{index}:0"]


def dry_run(params: PipelineParams, shape: TrainingShape) -> DryRun:
    """Rehearse one step. UserError that names the module and the operation if the step cannot be computed."""
    if shape.experts_a_token:
        raise UserError(
            "The dry run cannot follow a base with experts, whose kernels ask for a real device: leave --dry-run out; the plan's formula "
            "counts them."
        )
    params, notes = _replaced(params)
    workers, sharing = params.ray.num_workers, params.ray.sequence_workers
    rank = sharing // 2  # of the workers that share a row, the one in the middle receives, and with three or more it also sends
    started = time.perf_counter()
    with ExitStack() as around:
        around.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        around.enter_context(fake_process_group(workers, rank))
        worker = Worker(rank, workers, torch.device("cpu"), sequence_link(rank, workers, sharing))
        mesh = mesh_of(worker) if params.training.parallelism == "fsdp" else None
        around.enter_context(fake_tensors())
        if params.ray.use_gpu:
            around.enter_context(rehearsing_gpu())
            _forward_on_gpu(params)
        ledger, operations = _whole_step(params, worker, mesh)
    training = params.training
    tokens, beside = _part_of_worker(params, shape)
    return DryRun(
        tokens=tokens,
        num_workers=workers,
        checked_on_gpu=params.ray.use_gpu,
        peak_bytes=ledger.peak_bytes,
        parts={name: size for name, size in ledger.peak_parts.items() if size},
        predicted=predict_memory(shape, training, tokens, num_workers=workers, exchanged_bytes=beside),
        matrix_flops=operations.matrix_flops,
        attention_flops=operations.attention_flops,
        needed_flops=_needed_flops(params, shape),
        sent_bytes=dict(ledger.sent_bytes),
        kernels=dict(operations.kernels),
        kernel_bytes=dict(operations.moved_bytes),
        seconds=time.perf_counter() - started,
        notes=notes,
    )


def _replaced(params: PipelineParams) -> tuple[PipelineParams, tuple[str, ...]]:
    """The parameters of a step with one micro batch a worker, without what needs a real GPU; and what was replaced."""
    training, notes = params.training, []
    change: dict[str, Any] = {
        "rows_per_step": params.ray.num_workers // params.ray.sequence_workers * training.micro_batch_rows,
        "warmup_steps": 0,
        "steps": 1,
    }
    change["full_attention_steps"] = 0
    if training.loss_kernel == "liger" or (training.loss_kernel == "auto" and training.precision == "bf16"):
        change["loss_kernel"] = "chunked"
    if training.s2_executor.startswith("flash_attn"):
        change["s2_executor"] = "auto"
    if training.compile_layers:
        change["compile_layers"] = False
        notes.append("counted without training.compile_layers")
    if training.optimizer == "adamw_8bit":
        change["optimizer"] = "adamw"
        notes.append("adamw_8bit needs a GPU: counted with adamw, whose states are four times as large")
    if params.ray.sequence_workers > 1:
        notes.append(
            f"counted on worker {params.ray.sequence_workers // 2 + 1} of the {params.ray.sequence_workers} that share a row"
        )
    if training.loss_weighting != "none":
        change["loss_weighting"] = "none"
        notes.append(f"without training.loss_weighting {training.loss_weighting}")
    return params.model_copy(update={"training": training.model_copy(update=change)}), tuple(notes)


def _forward_on_gpu(params: PipelineParams) -> None:
    from ray_jobs.finetune.training.batches import read_micro_batch
    from ray_jobs.finetune.training.objective import evaluating

    device, rows = torch.device("cuda", 0), FullRows(1, params.row_tokens)
    with pretended_cuda():
        objective = _objective(params, device).requires_grad_(False)
        with torch.no_grad(), _told_where(objective, "on a GPU"):
            batch = read_micro_batch(rows, [0] * params.training.micro_batch_rows, device)
            objective(batch)
            with evaluating(objective, sparse=False):
                objective(read_micro_batch(rows, [0], device))


def _whole_step(params: PipelineParams, worker: Worker, mesh: Any) -> tuple[Ledger, OperationCounter]:
    from ray_jobs.finetune.training.lora import trainable
    from ray_jobs.finetune.training.optimization import build_optimizer
    from ray_jobs.finetune.training.steps import train_step

    training = params.training
    objective = _objective(params, worker.device)
    if mesh is not None:
        shard(objective, mesh)
    optimizer = build_optimizer(objective.model, training)
    weights = [p for _, p in trainable(objective.model)]
    for weight in weights:  # from the second step on, gradients and the optimizer's states are always there
        weight.grad = torch.zeros_like(weight)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    ledger = Ledger(worker.world_size, params.ray.sequence_workers)
    ledger.count([*objective.parameters(), *objective.buffers()], WEIGHTS)
    ledger.count((w.grad for w in weights if w.grad is not None), GRADIENTS)
    ledger.count((s for states in optimizer.state.values() for s in states.values() if isinstance(s, torch.Tensor)), OPTIMIZER)
    rows = FullRows(training.rows_per_step, params.row_tokens)
    with AttentionPairs() as pairs, ledger, OperationCounter(pairs) as operations, _told_where(objective, "in a step"):
        train_step(objective, optimizer, params, rows, list(range(len(rows))), 0, worker)
    return ledger, operations


def _objective(params: PipelineParams, device: torch.device) -> Any:
    """The objective in training mode, of weights without content on `device`.

    Its layers or heads in full are the first that can be in groups.
    """
    from ray_jobs.finetune.full_layers import auto_count, stated_full_heads, stated_full_layers
    from ray_jobs.finetune.training.objective import Objective, set_full_layers
    from ray_jobs.finetune.training.training_model import build_model_without_weights

    model = build_model_without_weights(params)
    materialise(model, device)
    if params.training.activation_offload:
        offload_out_of_sight(model)
    objective = Objective(model, params.training).train()
    training, num_layers, num_kv = params.training, objective.num_layers, objective.num_kv_heads
    layers, heads = stated_full_layers(training, num_layers), stated_full_heads(training, num_layers, num_kv)
    in_groups = objective.layers_in_groups(params)
    if training.probes_heads:
        heads = tuple((layer, head) for layer in in_groups for head in range(num_kv))[: auto_count(len(in_groups) * num_kv)]
    elif training.probes_layers:
        layers = in_groups[: auto_count(len(in_groups))]
    set_full_layers(objective, layers, heads)
    return objective


def _needed_flops(params: PipelineParams, shape: TrainingShape) -> float:
    from ray_jobs.finetune.training.objective import group_size_at

    lengths = np.full(params.training.micro_batch_rows, params.row_tokens)
    full_layers = shape.num_full_layers(params)
    return shape.cost.step_flops(lengths, group_size_at(0, params), full_layers) / params.ray.sequence_workers


def _part_of_worker(params: PipelineParams, shape: TrainingShape) -> tuple[int, float]:
    """(tokens of a micro batch on the worker that gets most of it, bytes that attention needs beside them), in the first step."""
    from ray_jobs.finetune.planning.sequence import exchanged_bytes, first_pattern, largest_part

    sharing, rows = params.ray.sequence_workers, params.training.micro_batch_rows
    cut = (shape, params.row_tokens, first_pattern(params, shape), sharing, rows)
    return largest_part(*cut), exchanged_bytes(*cut)


class _told_where:
    """Turns an error of torch into a UserError that names the module that was computing."""

    def __init__(self, objective: torch.nn.Module, occasion: str) -> None:
        self._occasion = occasion
        self._entered: list[str] = []
        self._hooks = []
        for name, module in objective.named_modules():
            self._hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._entered.append(name)))
            self._hooks.append(module.register_forward_hook(lambda *_: self._leave()))

    def _leave(self) -> None:
        if self._entered:
            self._entered.pop()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        if isinstance(error, (RuntimeError, TypeError, ValueError, NotImplementedError)) and not isinstance(error, UserError):
            where = f" in {self._entered[-1]}" if self._entered and self._entered[-1] else ""
            raise UserError(
                f"The dry run failed {self._occasion}{where}: {str(error).splitlines()[0]}; training would fail there too."
            ) from error
