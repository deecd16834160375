"""Micro batches cut over the workers that share a row (`ray.sequence_workers`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from data_schemas.errors import UserError
from ray_jobs.finetune.attention import mark_part
from ray_jobs.finetune.hybrids import carries_state
from ray_jobs.finetune.planning.flops import ModelCost, expert_tensors, experts_a_token
from ray_jobs.finetune.segments import segment_batch
from ray_jobs.finetune.sequence_parallel.attention import RowPart
from ray_jobs.finetune.sequence_parallel.cuts import RowCost, plan_cuts
from ray_jobs.finetune.sequence_parallel.exchange import Link
from ray_jobs.finetune.training.batches import MicroBatch


def sequence_link(rank: int, world_size: int, num_sharing: int, timeout_s: float = 1800.0) -> Link | None:
    """How this worker reaches those that share its rows, which have neighbouring ranks; None if none does. All ranks must call it.

    A worker that does not answer within `timeout_s` is taken for lost, here and in what all workers do together. UserError if the workers
    cannot be put into groups of `num_sharing`.
    """
    if num_sharing == 1:
        return None
    if world_size % num_sharing:
        raise UserError(
            f"{world_size} training workers cannot be put into groups of ray.sequence_workers {num_sharing}: make ray.num_workers a "
            "multiple of it."
        )
    link, limit = None, timedelta(seconds=timeout_s)
    everyone = dist.new_group(list(range(world_size)), timeout=limit)
    for first in range(0, world_size, num_sharing):
        ranks = tuple(range(first, first + num_sharing))
        group = dist.new_group(list(ranks), timeout=limit)
        if rank in ranks:
            link = Link(rank - first, ranks, group, timeout_s, everyone)
    return link


def refuse_uncuttable(model: torch.nn.Module) -> None:
    """UserError for a model, with or without adapter, whose rows cannot be cut. Its weights need no storage."""
    if carrier := next((module for module in model.modules() if carries_state(module)), None):
        raise UserError(
            f"Rows of this base cannot be cut over workers, because its {type(carrier).__name__} carries a state from token to token: set "
            "ray.sequence_workers to 1."
        )
    base: Any = model
    if hasattr(base, "get_base_model"):
        base = base.get_base_model()
    if expert_tensors(model):
        try:
            experts_a_token(base.config)
        except UserError as error:
            raise UserError(
                f"Rows of this base cannot be cut over workers, because the config of {base.config.model_type} does not say how many "
                "experts a token uses, and so not what a token costs: set ray.sequence_workers to 1."
            ) from error
    given = getattr(base.config, "rope_parameters", None) or {}
    of_layers = [value for value in given.values() if isinstance(value, Mapping)] or [given]
    for rope in of_layers:  # one for all layers, or one for each layer type
        kind = rope.get("rope_type")
        if kind == "dynamic" or (kind == "longrope" and list(rope["short_factor"]) != list(rope["long_factor"])):
            raise UserError(
                f"Rows cannot be cut over workers with {kind} RoPE whose frequencies depend on the row's longest document: set "
                "ray.sequence_workers to 1, or choose another model.rope_method."
            )


def row_cost(cost: ModelCost, num_full_layers: float, num_sharing: int, sparse: bool = True) -> RowCost:
    """The costs that decide the cuts of a model whose `num_full_layers` attend in full, or all if it is not `sparse`."""
    linear = (4 * cost.matrix_weights + 2 * cost.trained_matrix_weights) / (12 * cost.head_dim * cost.heads * cost.layers)
    full = (num_full_layers if sparse else cost.layers) / cost.layers
    stays = cost.kv_heads % num_sharing != 0  # else heads are exchanged for tokens
    unshifted = (cost.kv_heads + 1) // 2 / cost.kv_heads if cost.kv_heads > 1 else 0.5
    return RowCost(linear, in_groups=1 - full, in_full=full if stays else 0.0, unshifted=unshifted)


def part_of_batch(
    batch: MicroBatch, link: Link, group_size: int, cost: RowCost, cost_in_full: RowCost | None = None
) -> MicroBatch:
    """This worker's part of `batch`, whose rows are cut as one. A pure function of the batch, so all workers cut alike.

    `cost_in_full` counts where no document is cut into groups, so that all layers attend in full.
    """
    segments = segment_batch(batch.position_ids, group_size, batch.in_full)
    if cost_in_full is not None and segments.unshifted.bounds == segments.shifted.bounds:
        cost = cost_in_full
    bounds = np.array(segments.documents.bounds)
    marks = None if batch.in_full is None else batch.in_full[0].cpu().numpy()[bounds[:-1]]
    cuts = plan_cuts(np.diff(bounds), link.num_workers, group_size, cost, marks)
    part = RowPart(segments, cuts, link)
    mine = slice(part.start, part.end)
    positions = mark_part(batch.position_ids[:, mine].clone(), part)
    short = None if batch.short is None else batch.short[:, mine]
    return MicroBatch(batch.input_ids[:, mine], positions, short=short, part=part, whole=batch)


def part_of_places(values: torch.Tensor, part: RowPart | None) -> torch.Tensor:
    """[t] of this part from [T] of the whole row."""
    return values if part is None else values[part.start : part.end]


def shifted_places(weigh: Any, part: RowPart | None) -> Any:
    """A rule for the weights of the whole row's targets, for places that count from this part's first token."""
    if part is None:
        return weigh

    def of_part(places: slice, losses: torch.Tensor) -> torch.Tensor:
        first = part.start + places.start
        weights: torch.Tensor = weigh(slice(first, first + len(losses)), losses)
        return weights

    return of_part
