"""What cutting rows over several workers sends, and how long a row then fits, from configurations alone.

Bytes that one worker sends for a row in a step, counted for a row that is a single document, which is the dearest to cut:

    layer in groups    2 D s (K_u h_u + K_s h_s)                keys and values of its halo: K_u unshifted and K_s shifted key-value
                                                               heads, h tokens each, D channels of s bytes
    layer in full      t (2 H + 2 K) D s (C - 1) / C           heads for tokens and back, where C divides K; else the keys and
                                                               values from the document's start
    a step             3 times that with gradient checkpointing (forward twice, gradients once), else 2 times

Beside its part of the row, the worker that needs most has in a layer

    keys and values    3 (2 K D s m)                           m of them: a group, or the row in a layer in full; they are received, joined
                                                               with the part's own, and have gradients
    scores             12 a pair in float32                    of one block of queries to them, its softmax and gradient
    heads for tokens   t (3 H + 2 K) D s                       in a layer in full where C divides K

Ring attention (Liu et al. 2023, arXiv 2310.01889) sends 2 K t D s (C - 1) in each layer and pass, for the t tokens of a worker.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.memory import SHARE_USED, in_one_memory, predict_memory
from ray_jobs.finetune.planning.shape import TrainingShape
from ray_jobs.finetune.sequence_parallel.cuts import RowCost, plan_cuts, sent_tokens
from tasks.model.attention_scores import BLOCK_ELEMENTS


@dataclass(frozen=True)
class SentBytes:
    """Of the worker that sends most, for a row: in the forward pass of a layer in groups and of one in full, and in a step."""

    layer_in_groups: float
    layer_in_full: float
    step: float
    ring_layer: float


def sent_bytes(params: PipelineParams, shape: TrainingShape, num_full_layers: float, group_size: int) -> SentBytes:
    """For the rows of these parameters, cut over `ray.sequence_workers` workers."""
    count, cost, size = params.ray.sequence_workers, shape.cost, shape.compute_bytes
    lengths = np.array([params.row_tokens])
    cuts = plan_cuts(lengths, count, group_size, _cost(params, shape, num_full_layers, count))
    unshifted = (cost.kv_heads + 1) // 2 if cost.kv_heads > 1 else 1
    shifted = cost.kv_heads - unshifted if cost.kv_heads > 1 else 1
    halos = [sent_tokens(lengths, cut, group_size) for cut in cuts[1:-1]]
    in_groups = max(2 * cost.head_dim * size * (unshifted * u + shifted * s) for u, s in halos)
    most = max(b - a for a, b in itertools.pairwise(cuts))
    if cost.kv_heads % count == 0:
        in_full = most * 2 * (cost.heads + cost.kv_heads) * cost.head_dim * size * (count - 1) / count
    else:
        in_full = most * 2 * cost.kv_heads * cost.head_dim * size * (count - 1)  # to every worker behind it
    passes = 3 if params.training.gradient_checkpointing else 2
    sparse = 0 if params.training.attention == "full" else cost.layers - num_full_layers
    step = passes * (sparse * in_groups + (cost.layers - sparse) * in_full)
    ring = 2 * cost.kv_heads * most * cost.head_dim * size * (count - 1)
    return SentBytes(in_groups, in_full, step, ring)


def _cost(params: PipelineParams, shape: TrainingShape, num_full_layers: float, count: int) -> RowCost:
    from ray_jobs.finetune.training.row_parts import row_cost

    return row_cost(shape.cost, num_full_layers, count, sparse=params.training.attention != "full")


def largest_part(
    params: PipelineParams, shape: TrainingShape, tokens: int, num_full_layers: float, group_size: int, count: int
) -> int:
    """Tokens of the largest part of a row of `tokens`, one document, over `count` workers.

    It is the first part: where layers attend in full in place, later tokens cost more. A token at place x costs a + b x, so the first
    part ends where a x + b x^2 / 2 is the row's cost over `count`.
    """
    cost = _cost(params, shape, num_full_layers, count)
    if count == 1 or not cost.in_full:
        return math.ceil(tokens / count)
    a, b = cost.linear + 1 + cost.in_groups * min(group_size, tokens) / 2, cost.in_full
    share = (a * tokens + b * tokens**2 / 2) / count
    return min(tokens, math.ceil((math.sqrt(a * a + 2 * b * share) - a) / b))


def exchanged_bytes(
    params: PipelineParams, shape: TrainingShape, tokens: int, num_full_layers: float, group_size: int, count: int
) -> float:
    """What attention needs beside the part of a row of `tokens`, one document, on the worker that needs most of `count`."""
    if count == 1:
        return 0.0
    cost, size, part = shape.cost, shape.compute_bytes, math.ceil(tokens / count)
    in_full = num_full_layers or params.training.attention == "full"
    # In groups a cut lies at a multiple of the group where it can, so the shifted half of the heads has half a group to go on with.
    keys, pairs, heads = (
        min(group_size, tokens),
        (cost.heads + 1) // 2 * min(group_size // 2, part) * min(group_size, tokens),
        0.0,
    )
    if in_full and cost.kv_heads % count:
        keys, pairs = tokens, cost.heads * part * tokens
    elif in_full:
        heads = part * (3 * cost.heads + 2 * cost.kv_heads) * cost.head_dim * size
    block = max(BLOCK_ELEMENTS, 16 * cost.heads * keys)
    halo = 3 * 2 * cost.kv_heads * cost.head_dim * size * keys + 12 * min(pairs, block)
    return max(halo, heads)


def longest_row(
    params: PipelineParams,
    shape: TrainingShape,
    available_bytes: float,
    num_workers: int,
    cuda: bool,
    num_full_layers: float = 0,
    group_size: int = 2**40,
) -> int:
    """Tokens of the longest row that fits `num_workers` workers of `available_bytes` which share it; 0 if the model does not fit."""

    training = params.training if cuda else in_one_memory(params.training)

    def fits(tokens: int) -> bool:
        part = largest_part(params, shape, tokens, num_full_layers, group_size, num_workers)
        beside = exchanged_bytes(params, shape, tokens, num_full_layers, group_size, num_workers)
        found = predict_memory(shape, training, part, num_workers=num_workers, cuda=cuda, exchanged_bytes=beside)
        return found.total <= available_bytes * SHARE_USED

    if not fits(num_workers):
        return 0
    most = num_workers
    while fits(2 * most):
        most *= 2
    step = most // 2
    while step:
        if fits(most + step):
            most += step
        step //= 2
    return most
