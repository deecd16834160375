"""One optimizer step, and one validation, on rows dealt to ranks.

Every micro batch's summed loss is divided by the tokens of the whole step, and with weights also by the mean weight of all
training tokens. So loss and gradients do not depend on how the rows are split into ranks and micro batches, but with
dynamic RoPE, whose frequencies are those of a micro batch's longest document.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.flops import ModelCost, cost_of
from ray_jobs.finetune.sequence_parallel.answering import answering_among_others
from ray_jobs.finetune.training.batches import (
    MicroBatch,
    PositionsOfRow,
    Rows,
    costs_of_rows,
    num_targets,
    positions_without_gaps,
    read_micro_batch,
    rows_of_rank,
    rows_of_step,
)
from ray_jobs.finetune.training.chunked_loss import LossSums
from ray_jobs.finetune.training.distributed import Worker, reshard, sum_over_ranks
from ray_jobs.finetune.training.lora import trainable
from ray_jobs.finetune.training.objective import Objective, evaluating, group_size_at, num_full_layers_of, set_group_size
from ray_jobs.finetune.training.optimization import clip_gradients, learning_rate_scale
from ray_jobs.finetune.training.row_parts import part_of_batch, row_cost
from ray_jobs.finetune.training.short_windows import MixedRows
from ray_jobs.finetune.training.skipped_positions import skipped_positions
from ray_jobs.finetune.training.token_weights import TokenWeights

EVEN_LINEAR = 1e12  # cost of a token without attention beside which no attention counts
_NAMED = 8  # documents named when a step fails
_costs: WeakKeyDictionary[torch.nn.Module, ModelCost] = WeakKeyDictionary()  # counted once for each objective


@answering_among_others("all workers compute a step")
def train_step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    params: PipelineParams,
    rows: Rows,
    indices: list[int],
    step: int,
    worker: Worker,
    token_weights: TokenWeights | None = None,
) -> dict[str, Any]:
    """One optimizer step on the rows `indices`; returns loss (nats a token), gradient norm before clipping, learning rate and tokens.

    With `token_weights`, the gradient is that of the weighted loss; `weighted_loss` is its mean by weight, `loss` stays the plain one.
    UserError, before any weight changes, if the loss or a gradient is not finite. `WorkerLostError` if another worker does not answer.
    """
    training = params.training
    scale = learning_rate_scale(step, training.steps, training.warmup_steps, training.schedule)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
    torch.manual_seed(((training.seed * 1_000_003 + step) * 4099 + worker.rank) % 2**63)
    set_group_size(objective, group_size_at(step, params))
    optimizer.zero_grad(set_to_none=False)
    losses, sums = _backward(objective, params, rows, indices, step, worker, token_weights)
    weights = [p for _, p in trainable(objective.model)]
    if training.parallelism == "ddp":
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        sum_over_ranks([w.grad for w in weights if w.grad is not None], worker)
    sum_over_ranks([losses, sums], worker)
    loss = losses.sum().item()
    norm = clip_gradients(weights, training.max_grad_norm)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise _not_finite(step, losses, norm, rows, indices)
    optimizer.step()
    tokens = sum(len(rows.row(i)["input_ids"]) for i in indices)
    weighted = {} if token_weights is None else {"weighted_loss": (sums[0] / sums[1]).item()}
    return {"loss": loss} | weighted | {"grad_norm": norm, "learning_rate": training.learning_rate * scale, "tokens": tokens}


def _backward(
    objective: Objective,
    params: PipelineParams,
    rows: Rows,
    indices: list[int],
    step: int,
    worker: Worker,
    token_weights: TokenWeights | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute this rank's gradients.

    Returns float64 [len(indices)], each micro batch's plain loss divided evenly among its rows, and float64 [2], the sums of the
    weighted losses and of the weights.
    """
    training = params.training
    targets = num_targets(rows, indices)
    mean_weight = 1.0 if token_weights is None else token_weights.mean_weight
    costs = costs_of_rows(rows, indices, group_size_at(step, params), full_share(objective))
    micros = rows_of_rank(indices, worker.reader, worker.num_readers, training.micro_batch_rows, costs)
    losses, sums = torch.zeros(len(indices), dtype=torch.float64), torch.zeros(2, dtype=torch.float64)

    def summed(row_indices: list[int]) -> LossSums:
        batch = read_micro_batch(rows, row_indices, worker.device, positions_at(step, params, rows))
        batch = cut_for(objective, batch, worker, group_size_at(step, params))
        if token_weights is not None:
            return LossSums(*objective(batch, token_weights))
        loss = objective(batch)
        return LossSums(loss, loss.detach(), torch.zeros_like(loss))

    for micro in micros:
        found = summed(micro)
        (found.weighted / (targets * mean_weight)).backward()
        sums += torch.stack([found.weighted.detach(), found.weights]).double().cpu()
        for row in micro:
            losses[indices.index(row)] += (found.plain / targets).item() / len(micro)
    if training.parallelism == "fsdp":
        shortest = min(indices, key=lambda i: len(rows.row(i)["input_ids"]))
        for _ in range(_passes(len(indices), worker.num_readers, training.micro_batch_rows) - len(micros)):
            # All ranks gather layers together, so a rank with fewer micro batches takes part and adds nothing.
            (summed([shortest]).weighted * 0.0).backward()
    return losses, sums


def cut_for(objective: Objective, batch: MicroBatch, worker: Worker, group_size: int, sparse: bool = True) -> MicroBatch:
    """This worker's part of a batch where workers share rows, else the batch.

    Where nothing is `sparse`, as in validation, all parts have about as many tokens: equal cost would give the first worker several
    times as many, and so let validation decide how long a row may be.
    """
    if worker.link is None:
        return batch
    model = objective.model
    if (sizes := _costs.get(objective)) is None:
        sizes = _costs[objective] = cost_of(model, model.get_base_model().config)
    costs = [row_cost(sizes, num_full_layers_of(model), worker.link.num_workers, in_groups) for in_groups in (sparse, False)]
    if not sparse:
        costs = [replace(cost, linear=EVEN_LINEAR) for cost in costs]
    return part_of_batch(batch, worker.link, group_size, *costs)


def positions_at(step: int, params: PipelineParams, rows: Rows | None = None) -> PositionsOfRow:
    """The positions of a row in training at this step: with gaps under `training.position_skipping`, but not in rows cut short."""
    parts, seed, window = params.training.position_skipping, params.training.seed, params.model.target_length
    if parts < 2:
        return positions_without_gaps

    def positions(row: int, lengths: np.ndarray) -> np.ndarray:
        if isinstance(rows, MixedRows) and rows.is_short(row):
            return positions_without_gaps(row, lengths)
        return skipped_positions(lengths, parts, window, seed, step, row)

    return positions


def _passes(num_rows: int, world_size: int, micro_batch_rows: int) -> int:
    """Number of micro batches of the rank that has most."""
    return math.ceil(math.ceil(num_rows / world_size) / micro_batch_rows)


def _not_finite(step: int, losses: torch.Tensor, norm: float, rows: Rows, indices: list[int]) -> UserError:
    """Names the documents of the micro batches whose loss is not finite, or of the whole step if only a gradient is not."""
    bad = [i for i, loss in zip(indices, losses.tolist(), strict=True) if not math.isfinite(loss)] or indices
    documents = list(dict.fromkeys(str(chunk).rsplit(":", 1)[0] for i in bad for chunk in rows.chunk_ids(i)))
    named = ", ".join(documents[:_NAMED]) + (f" and {len(documents) - _NAMED} more" if len(documents) > _NAMED else "")
    return UserError(
        f"Training stopped at step {step + 1}: the loss is {losses.sum().item()} and the gradient norm {norm}, on documents {named}; "
        "lower training.learning_rate, or check those documents."
    )


@answering_among_others("all workers validate")
def validate(objective: Objective, rows: Rows, params: PipelineParams, worker: Worker) -> dict[str, float]:
    """Mean held-out loss (nats a token) with full attention, and also with S2-Attn if that is trained; the gap is the cost of S2-Attn.

    Of conversations the answers count alone.
    """
    training = params.training
    indices = rows_of_step(0, min(training.validation_rows, len(rows)), len(rows), seed=0)
    mine = indices[worker.reader :: worker.num_readers]
    missing = _passes(len(indices), worker.num_readers, 1) - len(mine) if training.parallelism == "fsdp" else 0
    kinds = {"validation_loss": False} | ({"s2_validation_loss": True} if training.attention == "s2" else {})
    sums = torch.zeros(len(kinds), dtype=torch.float64)
    set_group_size(objective, group_size_at(0, params))
    for column, sparse in enumerate(kinds.values()):
        with evaluating(objective, sparse=sparse):
            for place, index in enumerate(mine + indices[:1] * missing):
                batch = _answers_alone(read_micro_batch(rows, [index], worker.device))
                loss = objective(cut_for(objective, batch, worker, group_size_at(0, params), sparse)).item()
                sums[column] += loss if place < len(mine) else 0.0
    reshard(objective)
    sum_over_ranks([sums], worker)
    total = max(1, _num_scored(rows, indices))
    return {name: sums[column].item() / total for column, name in enumerate(kinds)}


def _answers_alone(batch: MicroBatch) -> MicroBatch:
    """The batch with only the tokens scored that weigh; as it is where the rows state no weights."""
    return batch if batch.loss_weights is None else replace(batch, scored=batch.loss_weights > 0)


def _num_scored(rows: Rows, indices: list[int]) -> int:
    """Number of targets that `_answers_alone` leaves."""
    return sum(
        len(r["input_ids"]) - len(r["seq_lengths"]) if "loss_weights" not in r else _weighing(r)
        for r in (rows.row(i) for i in indices)
    )


def _weighing(row: dict[str, np.ndarray]) -> int:
    firsts = np.cumsum(row["seq_lengths"]) - row["seq_lengths"]
    return int((row["loss_weights"] > 0).sum() - (row["loss_weights"][firsts] > 0).sum())


def full_share(objective: Objective) -> float:
    """Share of the layers that attend in full."""
    return num_full_layers_of(objective.model) / objective.num_layers


def sequences_in_full(rows: Rows, indices: list[int]) -> np.ndarray:
    """Bool [num_sequences]: which of all sequences in these rows attend in full in every layer."""
    read = (rows.row(i) for i in indices)
    return np.concatenate([r.get("full_attention", np.zeros(len(r["seq_lengths"]), bool)) for r in read])


def sequence_lengths(rows: Rows, indices: list[int]) -> np.ndarray:
    """int [num_sequences]: the lengths of all sequences in these rows."""
    return np.concatenate([rows.row(i)["seq_lengths"] for i in indices])
