"""The probe behind `training.full_attention_layers: auto` and `full_attention_heads: auto`: which layers or heads copy from far away.

Some heads retrieve: they find an earlier occurrence of the present text and copy what followed it (Wu et al. 2024,
arXiv 2404.15574). A layer that holds such heads loses its use in groups, another one loses little. So each layer in turn is put
into groups while all others attend in full, before any training step, and the loss is compared:

    |------------ three quarters: text from the training rows ------------|---- last quarter: passages of it again ----|
         [passage]  further away than a group  ........................................  [cue|scored tokens]

Only layers that training puts into groups are probed: not one whose sliding window is shorter than a group, nor one without attention.
The score of a layer is how much the scored tokens' loss rises, in nats a token. For heads, each key-value head in turn is put into
groups instead. It is unshifted there. Which half it is in later depends on what is chosen, but in both halves a segment has at most a
group's tokens, so no copied passage is in reach. The passages are copied from the user's own text. Everything is a function of the rows and
the seed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.full_layers import FullLayers, Head, auto_count, ranked
from ray_jobs.finetune.grouped_layers import sparse_group_size
from ray_jobs.finetune.training.batches import MicroBatch, Rows, rows_of_step
from ray_jobs.finetune.training.distributed import Worker, reshard, sum_over_ranks
from ray_jobs.finetune.training.objective import Objective, evaluating, set_full_layers, set_group_size

LONGEST_PROBE = 4096  # tokens of a probe; a longer target has its layers chosen at this length
PROBED_TOKENS = 8_192  # of all probes together
_PASSAGE = 32  # tokens of a passage, the first quarter of which is not scored
_STREAM = 2**31 + 16


def probe_layers(objective: Objective, params: PipelineParams, rows: Rows, worker: Worker) -> FullLayers:
    """Probe the base in `objective`, before any step; leaves all layers in groups. Called on every rank.

    Heads are probed instead of layers where `training.full_attention_heads` is auto. Nothing is chosen where no layer can be in groups.
    """
    in_groups = objective.layers_in_groups(params)
    if not in_groups:
        return FullLayers(())
    length = min(params.model.target_length, LONGEST_PROBE)
    group_size = probe_group_size(params, length)
    batches = probe_batches(rows, length, group_size, params.training.seed, worker.device)
    num_layers = objective.num_layers
    set_group_size(objective, group_size)
    num_kv = objective.num_kv_heads if params.training.probes_heads else 1
    probed = [(layer, head) for layer in in_groups for head in range(num_kv)]
    kept = [all_but(None, num_layers, num_kv)] + [all_but(one, num_layers, num_kv) for one in probed]
    # Ranks that share a model's weights must all compute the same batches; else each takes its part.
    mine = batches if params.training.parallelism == "fsdp" else batches[worker.rank :: worker.world_size]
    sums = torch.zeros(len(kept) + 1, dtype=torch.float64)  # the losses, and how many tokens they are of
    sums[-1] = sum(int(batch.scored.sum()) for batch in mine if batch.scored is not None)
    for number, (layers, heads) in enumerate(kept):
        set_full_layers(objective, layers, heads)
        with evaluating(objective, sparse=True):
            sums[number] = sum(objective(batch).item() for batch in mine)
    reshard(objective)
    set_full_layers(objective, ())
    # Workers without a batch wait for the whole probe, so in torch's own group, whose limit is longer than that of a lost worker.
    sum_over_ranks([sums], replace(worker, link=None))
    losses = (sums[:-1] / sums[-1]).tolist()
    if not all(map(math.isfinite, losses)):
        raise UserError(
            "The base's loss is not finite in the probe of layers for full attention: try training.precision fp32, or check the base."
        )
    found = {one: round(loss - losses[0], 6) for one, loss in zip(probed, losses[1:], strict=True)}
    scores = tuple(found.get((layer, head)) for layer in range(num_layers) for head in range(num_kv))
    best = sorted(ranked(scores)[: auto_count(len(probed))])
    if params.training.probes_heads:
        return FullLayers((), scores, round(losses[0], 6), tuple(divmod(number, num_kv) for number in best), num_kv)
    return FullLayers(tuple(best), scores, round(losses[0], 6))


def all_but(one: Head | None, num_layers: int, num_kv: int) -> tuple[tuple[int, ...], tuple[Head, ...]]:
    """Layers, and heads of one more layer, that attend in full: all of a model's but `one` head. With `num_kv` 1 that is a layer."""
    if one is None:
        return tuple(range(num_layers)), ()
    layer, head = one
    return tuple(n for n in range(num_layers) if n != layer), tuple((layer, n) for n in range(num_kv) if n != head)


def probe_group_size(params: PipelineParams, length: int) -> int:
    """The share of a probe that a group of the training is of its rows; at most a quarter, so that there is text further away."""
    of_training = sparse_group_size(params)
    return max(2, min(of_training * length // params.row_tokens, of_training, length // 4))


def probe_batches(rows: Rows, length: int, group_size: int, seed: int, device: torch.device) -> list[MicroBatch]:
    """Sequences of `length` tokens whose last quarter repeats passages from further away than a group."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, _STREAM))))
    passage = min(_PASSAGE, length // 4)
    num_passages = length // 4 // passage
    text = length - num_passages * passage
    batches = []
    for number in range(max(1, PROBED_TOKENS // length)):
        ids = _text(rows, text, seed, number)
        starts = np.arange(text, length, passage)
        furthest = np.maximum(1, np.minimum(text - passage, starts - group_size - passage))
        sources = (generator.random(num_passages) * furthest).astype(np.int64)
        copies = [ids[start : start + passage] for start in sources.tolist()]
        tokens = np.concatenate([ids, *copies])
        scored = np.zeros(length, bool)
        scored[text:] = np.tile(np.arange(passage) >= passage // 4, num_passages)
        batches.append(
            MicroBatch(
                torch.from_numpy(tokens.astype(np.int64))[None].to(device),
                torch.arange(length, device=device)[None],
                scored=torch.from_numpy(scored)[None].to(device),
            )
        )
    return batches


def _text(rows: Rows, num_tokens: int, seed: int, number: int) -> np.ndarray:
    """Tokens of training rows, whole rows end to end; rows are read again if there are too few."""
    parts: list[np.ndarray] = []
    found = 0
    while found < num_tokens:
        row = rows_of_step(number * 64 + len(parts), 1, len(rows), seed)[0]
        parts.append(rows.row(row)["input_ids"])
        found += len(parts[-1])
    return np.concatenate(parts)[:num_tokens]
