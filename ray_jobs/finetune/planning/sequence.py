"""What cutting rows over several workers sends, and how long a row then fits, from configurations alone.

Bytes that one worker sends for a row in a step, counted for a row that is a single document, which is the dearest to cut:

    layer in groups    2 D s (K_u h_u + K_s h_s)                keys and values of its halo: K_u unshifted and K_s shifted key-value
                                                               heads, h tokens each, D channels of s bytes
    layer in full      t (2 H + 2 K) D s (C - 1) / C           heads for tokens and back, where C divides K; else the keys and
                                                               values from the document's start
    a step             3 times that with gradient checkpointing (forward twice, gradients once), else 2 times

Beside its part of a micro batch, the worker that needs most has in a layer

    in groups          3 (2 K D s m)                           keys and values of m tokens, a group: received, joined with the part's
                                                               own, and their gradients
    in full            2 D s m (K + 3)                         where C does not divide K: those of a row's m tokens before the part's
                                                               end, and of one head at a time what was received and gradients
    heads for tokens   t (3 H + 2 K) D s                       in full where C divides K
    document in full   3 (2 K D s m)                           one that shares its row with documents in groups
    scores             12 a pair in float32                    of one block of queries to them, its softmax and gradient

and in validation, without gradients and in full in all layers

    in full            max(2 (2 D s m), 2 D s m + scores)      of one head; a score's place in the mask takes 9 bytes more

Ring attention (Liu et al. 2023, arXiv 2310.01889) sends 2 K t D s (C - 1) in each layer and pass, for the t tokens of a worker.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.planning.estimate import conversations_in_full
from ray_jobs.finetune.planning.memory import SHARE_USED, MemoryEstimate, forward_bytes, in_one_memory, predict_memory
from ray_jobs.finetune.planning.shape import TrainingShape
from ray_jobs.finetune.sequence_parallel.cuts import RowCost, plan_cuts, sent_tokens
from tasks.model.attention_scores import BLOCK_ELEMENTS

_FEWEST_QUERIES = 16  # in a block of scores, see `attend_in_blocks`
_SCORE_BYTES, _MASK_BYTES = 12, 9


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


@dataclass(frozen=True)
class Pattern:
    """How rows are attended to at one time of a run: `in_full` layers or as many heads in full, the others in groups.

    `by_halos`: documents in full that share a row with documents in groups. Their keys and values are sent even where workers could
    exchange heads.
    """

    in_full: float
    group_size: int
    by_halos: bool = False


def first_pattern(params: PipelineParams, shape: TrainingShape) -> Pattern:
    """That of the first step."""
    from ray_jobs.finetune.training.objective import group_size_at

    if params.training.attention == "full":
        return _all_in_full(params, shape)
    return Pattern(shape.num_full_layers(params), group_size_at(0, params))


def patterns_of(params: PipelineParams, shape: TrainingShape) -> list[Pattern]:
    """All of a run's training, the first step's first."""
    found = [first_pattern(params, shape)]
    if params.training.attention == "full":
        return found
    if params.training.full_attention_steps or params.retrieval.share:  # a retrieval document fills its row
        found.append(_all_in_full(params, shape))
    if conversations_in_full(params):
        found.append(Pattern(shape.cost.layers, found[0].group_size, by_halos=True))
    return found


def _all_in_full(params: PipelineParams, shape: TrainingShape) -> Pattern:
    return Pattern(shape.cost.layers, 2 * params.row_tokens)


class Part(NamedTuple):
    """Of a micro batch, on one worker: its `tokens`; how many of them go on with a document of the part before; and how many tokens
    that document has up to the last of these."""

    tokens: float
    joined: float
    keys: float


def _parts(
    shape: TrainingShape, tokens: int, pattern: Pattern, count: int, rows: int, *, evenly: bool = False
) -> Iterator[Part]:
    """For each of `count` workers, of `rows` rows of `tokens`, a document each.

    A token at place x of a document costs a + b x, so x tokens from its start cost a x + b x^2 / 2; `evenly` takes b as 0.
    """
    from ray_jobs.finetune.training.row_parts import row_cost

    cost = row_cost(shape.cost, pattern.in_full, count)
    in_full = pattern.in_full / shape.cost.layers if pattern.by_halos else cost.in_full
    a, b = cost.linear + 1 + cost.in_groups * min(pattern.group_size, tokens) / 2, 0.0 if evenly else in_full
    shares = [number * rows / count for number in range(count + 1)]
    bounds = []
    for share in shares:
        rest = (share % 1) * (a * tokens + b * tokens**2 / 2)
        bounds.append(int(share) * tokens + ((math.sqrt(a * a + 2 * b * rest) - a) / b if b else rest / a))
    for (first, last), share in zip(itertools.pairwise(bounds), shares, strict=False):
        start = int(share) * tokens
        end = min(last, start + tokens) if share % 1 else start  # of the document that the part goes on with
        yield Part(last - first, max(0.0, end - first) if share % 1 else 0.0, end - start)


def largest_part(shape: TrainingShape, tokens: int, pattern: Pattern, count: int, rows: int = 1) -> int:
    """Tokens of the largest part of `rows` rows of `tokens`, a document each, over `count` workers.

    Where layers attend in full in place, later tokens of a document cost more, so it is a part at a document's start.
    """
    largest = max(part.tokens for part in _parts(shape, tokens, pattern, count, rows))
    return min(rows * tokens, math.ceil(round(largest, 3)))


def exchanged_bytes(shape: TrainingShape, tokens: int, pattern: Pattern, count: int, rows: int = 1) -> float:
    """What attention needs beside the part of `rows` rows of `tokens`, a document each, on the worker that needs most of `count`."""
    if count == 1:
        return 0.0
    cost, size, parts = shape.cost, shape.compute_bytes, list(_parts(shape, tokens, pattern, count, rows))
    token, found = 2 * cost.head_dim * size, [0.0]  # bytes of a token's key and value of a head
    exchanges_heads = cost.kv_heads % count == 0 and not pattern.by_halos
    if pattern.in_full and exchanges_heads:
        largest = max(part.tokens for part in parts)
        found.append(largest * (3 * cost.heads + 2 * cost.kv_heads) * cost.head_dim * size)
    for part in (part for part in parts if part.joined):
        if pattern.in_full and pattern.by_halos:
            found.append(3 * cost.kv_heads * token * part.keys + _scores(part.joined, part.keys, (cost.heads + 1) // 2))
        elif pattern.in_full and not exchanges_heads:
            group = cost.heads // cost.kv_heads
            found.append((cost.kv_heads + 3) * token * part.keys + _scores(part.joined, part.keys, group))
        if pattern.in_full < cost.layers:
            # A cut lies at a multiple of the group where it can, so the shifted half of the heads has half a group to go on with.
            group_size = min(pattern.group_size, tokens)
            queries = min(pattern.group_size // 2, math.ceil(part.tokens))
            found.append(3 * cost.kv_heads * token * group_size + _scores(queries, group_size, (cost.heads + 1) // 2))
    return max(found)


def _scores(queries: float, keys: float, heads: int, each: float = _SCORE_BYTES) -> float:
    """Bytes of the scores that are held at once."""
    return each * min(heads * queries * keys, max(BLOCK_ELEMENTS, _FEWEST_QUERIES * heads * keys))


def validation_bytes(shape: TrainingShape, training: TrainingParams, tokens: int, count: int) -> float:
    """What a validation row of `tokens`, one document, needs beside weights, gradients and states on the worker that needs most of
    `count`: validation has no gradients, and all layers attend in full."""
    return max(_validation_bytes(shape, training, tokens, count))


def _validation_bytes(shape: TrainingShape, training: TrainingParams, tokens: int, count: int) -> Iterator[float]:
    """On each worker, of about equal numbers of tokens."""
    cost, size = shape.cost, shape.compute_bytes
    group = cost.heads // cost.kv_heads
    for part in _parts(shape, tokens, Pattern(cost.layers, 2 * tokens), count, 1, evenly=True):
        if cost.kv_heads % count == 0:
            beside = part.tokens * (3 * cost.heads + 2 * cost.kv_heads) * cost.head_dim * size if count > 1 else 0.0
        else:
            halo = 2 * cost.head_dim * size * part.keys
            beside = halo + max(halo, _scores(part.joined, part.keys, group, _SCORE_BYTES + _MASK_BYTES / group))
        yield forward_bytes(shape, training, math.ceil(part.tokens), beside)


def worker_peak(
    params: PipelineParams,
    shape: TrainingShape,
    training: TrainingParams,
    tokens: int,
    count: int,
    num_workers: int,
    *,
    rows: int = 1,
    cuda: bool = False,
) -> tuple[int, MemoryEstimate]:
    """(tokens of the part, the peak) where a worker of a run needs most, with `rows` rows of `tokens` in a micro batch of `count` workers.

    `training` is used instead of `params.training`.
    """
    in_validation = validation_bytes(shape, training, tokens, count) if count > 1 else 0.0
    found = []
    for pattern in patterns_of(params, shape) if count > 1 else [first_pattern(params, shape)]:
        part = largest_part(shape, tokens, pattern, count, rows)
        beside = exchanged_bytes(shape, tokens, pattern, count, rows)
        estimate = predict_memory(
            shape, training, part, num_workers=num_workers, cuda=cuda, exchanged_bytes=beside, validation_bytes=in_validation
        )
        found.append((part, estimate))
    return max(found, key=lambda pair: pair[1].total)


def longest_row(params: PipelineParams, shape: TrainingShape, available_bytes: float, num_workers: int, cuda: bool) -> int:
    """Tokens of the longest row that fits `num_workers` workers of `available_bytes` which share it, in training and in validation; 0 if
    the model does not fit. Groups are those of `params`."""
    training = params.training if cuda else in_one_memory(params.training)

    def fits(tokens: int) -> bool:
        _, found = worker_peak(params, shape, training, tokens, num_workers, num_workers, cuda=cuda)
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
