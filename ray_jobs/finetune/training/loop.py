"""The training loop in plain torch. It gets its rank, world size and a `report` function, and needs neither Ray nor Prefect.

step = rows_per_step rows, dealt to the ranks by cost
for each micro batch:  hidden states with S2-Attn -> summed loss / tokens of the whole step -> backward
sum gradients over ranks, clip, AdamW; every some steps validate with full attention and save a checkpoint
at the end, where asked for, the mean of the weights after each of the last steps takes their place
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.full_layers import FullLayers, read_full_layers, stated_full_heads, stated_full_layers, write_full_layers
from ray_jobs.finetune.planning.flops import ModelCost, cost_of, peak_flops
from ray_jobs.finetune.planning.second_pass import second_pass_flops
from ray_jobs.finetune.training.averaging import WeightAverage
from ray_jobs.finetune.training.batches import Rows, StepOrder, costs_of_rows
from ray_jobs.finetune.training.checkpoint import Cursor, load_adapter, load_checkpoint, save_adapter, save_checkpoint
from ray_jobs.finetune.training.distributed import Worker, mesh_of, shard
from ray_jobs.finetune.training.layer_probe import probe_layers
from ray_jobs.finetune.training.long_ce import LongCEWeights
from ray_jobs.finetune.training.objective import Objective, group_size_at, num_full_layers_of, set_full_layers
from ray_jobs.finetune.training.optimization import build_optimizer
from ray_jobs.finetune.training.row_parts import refuse_uncuttable
from ray_jobs.finetune.training.short_windows import MixedRows, short_windows_of
from ray_jobs.finetune.training.stated_weights import StatedWeights, mean_cut
from ray_jobs.finetune.training.steps import full_share, sequence_lengths, sequences_in_full, train_step, validate
from ray_jobs.finetune.training.token_weights import CappedWeights, ExactWeights, TokenWeights, exact_weights
from ray_jobs.finetune.training.training_model import build_model
from ray_jobs.finetune.weighting_rules import first_long_context

if TYPE_CHECKING:
    from peft import PeftModel

Report = Callable[[dict[str, Any], Path | None], None]


def train(
    params: PipelineParams,
    train_rows: Rows,
    heldout_rows: Rows,
    worker: Worker,
    report: Report,
    resume_from: Path | None,
    scratch: Path,
    save_now: Callable[[], bool] = lambda: False,
    start: Path | None = None,
    rows_read: int = 0,
) -> PeftModel:
    """Train to `params.training.steps` and return the model, still wrapped, with the weights that are to be published.

    Args:
        report: called with (metrics, checkpoint folder) on every rank after every step. Only rank 0 passes a folder, written below
            `scratch`; it then belongs to the callee.
        resume_from: a checkpoint to continue from; None starts at step 0.
        save_now: called on every rank after every step; whether an extra checkpoint is due, the same answer on all ranks.
        start: folder of the adapter whose weights step 0 has, in place of the base's.
        rows_read: how many of `train_rows`, in their order, the stages before have read; this one goes on after them.

    Raises:
        UserError: the loss or a gradient is not finite, naming the documents; or no target has the long context that
            `training.loss_weighting` asks for; or `start` is an adapter of another shape.
    """
    training = params.training
    objective, optimizer = set_up(params, worker, start)
    model = objective.model
    peak = peak_flops(worker.device, params.ray.peak_tflops, training.precision)
    cost = _cost_for_mfu(model) if peak is not None else None
    chosen = full_layers_of(objective, params, train_rows, worker, resume_from)
    set_full_layers(objective, chosen.layers, chosen.heads)
    average = WeightAverage(training.steps, training.average_last_steps) if training.average_last_steps else None
    first = load_checkpoint(resume_from, model, optimizer, average).step if resume_from else 0
    order, token_weights = (
        step_order(params, train_rows, full_share(objective), rows_read),
        token_weights_of(params, train_rows),
    )
    mixed = short_windows_of(params, train_rows)
    for step in range(first, training.steps):
        started = time.perf_counter()
        indices = order.rows(step)
        rows = train_rows if mixed is None else mixed.of_step(train_rows, indices, step)
        metrics = train_step(objective, optimizer, params, rows, indices, step, worker, token_weights)
        done, last = step + 1, step + 1 == training.steps
        metrics |= {"step": done, "seconds": time.perf_counter() - started}
        if isinstance(rows, MixedRows):
            metrics["short_rows"] = sum(map(rows.is_short, indices))
        if peak is not None and cost is not None:
            lengths, in_full = sequence_lengths(rows, indices), sequences_in_full(rows, indices)
            flops = cost.step_flops(lengths, group_size_at(step, params), num_full_layers_of(model), in_full)
            flops += second_pass_flops(params, cost, lengths)
            metrics["mfu"] = flops / metrics["seconds"] / (peak * worker.world_size)
        if average is not None:
            average.update(model, done)
            if last:
                of_last = validate(objective, heldout_rows, params, worker)["validation_loss"]
                metrics["last_weights_validation_loss"] = of_last
                average.put_into(model)
        if done % training.validate_every == 0 or last:
            metrics |= validate(objective, heldout_rows, params, worker)
        directory = None
        if save_now() or done % training.checkpoint_every == 0 or last:
            if worker.rank == 0:
                directory = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=scratch))
                write_full_layers(directory, chosen)
            if last:
                save_adapter(directory and directory / "adapter", model)
            # After all else, because it names the folder's files.
            save_checkpoint(directory, model, optimizer, Cursor(step=done), average)
        report(metrics, directory)
    return model


def _cost_for_mfu(model: PeftModel) -> ModelCost | None:
    """None where the base's configuration does not say what a step needs: it is trained without its MFU."""
    try:
        return cost_of(model, model.get_base_model().config)
    except UserError:
        return None


def set_up(params: PipelineParams, worker: Worker, start: Path | None = None) -> tuple[Objective, torch.optim.Optimizer]:
    """The objective in training mode, sharded over the workers if `parallelism` is fsdp, and its fresh optimizer.

    `start` is the folder of an adapter to go on from. UserError if that has another shape.
    """
    training = params.training
    sharded = training.parallelism == "fsdp"
    # fully_shard moves one layer at a time to the device and keeps this worker's shard, so no device ever holds all weights.
    model = build_model(params, worker.device, place=not sharded)
    if start is not None:
        load_adapter(start, model)
    if worker.link is not None:
        refuse_uncuttable(model)
    objective = Objective(model, training).train()
    if sharded:
        if not dist.is_initialized():
            raise RuntimeError("training.parallelism fsdp needs a process group")
        shard(objective, mesh_of(worker))
    return objective, build_optimizer(model, training)


def full_layers_of(
    objective: Objective, params: PipelineParams, rows: Rows, worker: Worker, resume_from: Path | None
) -> FullLayers:
    """The layers or heads that attend in full: as stated, or found by a probe at the run's start and kept in its checkpoints."""
    training = params.training
    if training.probes_layers or training.probes_heads:
        kept = read_full_layers(resume_from) if resume_from else None
        return kept or probe_layers(objective, params, rows, worker)
    heads = stated_full_heads(training, objective.num_layers, objective.num_kv_heads)
    can = objective.layers_in_groups(params)
    layers = stated_full_layers(training, objective.num_layers)
    return FullLayers(tuple(layer for layer in layers if layer in can), heads=heads)


def step_order(params: PipelineParams, rows: Rows, full_share: float = 0.0, rows_read: int = 0) -> StepOrder:
    """Which rows form each step, after `rows_read` others; with `balance_steps` above 1, rows of similar cost are put in the same step."""
    training = params.training
    window = training.balance_steps
    costs = costs_of_rows(rows, range(len(rows)), group_size_at(0, params), full_share) if window > 1 else None
    return StepOrder(len(rows), training.rows_per_step, training.seed, costs, window, rows_read)


def token_weights_of(params: PipelineParams, rows: Rows) -> TokenWeights | None:
    """The weights that the shards state, and the rule of `training.loss_weighting`; None where all targets count the same.

    UserError if no target of the rows has a long left context.
    """
    rule = _weighting_rule(params, rows)
    if not (params.retrieval.share or params.corpus.has_instructions):
        return rule
    cut = mean_cut(_every_row(rows), rule) if isinstance(rule, ExactWeights) else 0.0
    return StatedWeights(rule, getattr(rows, "mean_loss_weight", 1.0), cut)


def _every_row(rows: Rows) -> Iterator[dict[str, np.ndarray]]:
    return (rows.row(i) for i in range(len(rows)))


def _weighting_rule(params: PipelineParams, rows: Rows) -> CappedWeights | None:
    training = params.training
    if training.loss_weighting == "none":
        return None
    long_from = first_long_context(params)
    if training.loss_weighting == "exact":
        return exact_weights(_every_row(rows), long_from, training.loss_extra_mass, training.loss_max_weight)
    most = {} if training.loss_max_weight is None else {"max_weight": training.loss_max_weight}
    return LongCEWeights(long_from, always=training.parallelism == "fsdp", **most)
