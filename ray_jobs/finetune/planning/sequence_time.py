"""Hours that a billion tokens take in rows that several workers share: S2-Attn in parallel, a ring and Ulysses.

A row of n tokens over C workers, each of F operations and B bytes a second, needs

    groups     max(f_s / C F, b_s / B)     halos are sent while the local part is computed
    ring       max(f_n / C F, b_r / B)     full attention; keys and values go round while they are computed with
    Ulysses    f_n / C F + b_u / B         full attention; heads are exchanged for tokens before and after it

seconds, with f the operations of a step (`planning.flops`: 12 D for each pair of query and key, head and layer), for groups or for all
n (n + 1) / 2 pairs, and b the bytes that a worker sends in the passes of a step (`planning.sequence`):

    b_s        p L 2 D s (K / 2) (g / 2)                p passes, 3 with recomputed layers; L layers; groups of g tokens
    b_r        p L 2 D s K n (C - 1) / C
    b_u        p L D s (2 H + 2 K) (n / C) (C - 1) / C

A billion tokens take 10^9 / n rows. Both rivals are given perfect balance, and full attention without any cost of its own beyond its
operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_jobs.finetune.planning.flops import ModelCost

USUAL_BYTES_PER_S = 50e9  # between two workers: a network card of 400 Gb/s for each GPU; assumed, not measured


@dataclass(frozen=True)
class HoursABillion:
    """Of all workers together, for a billion tokens."""

    groups: float
    ring: float
    ulysses: float


def hours_a_billion_tokens(
    cost: ModelCost,
    tokens: int,
    num_workers: int,
    group_size: int,
    *,
    flops_per_s: float,
    num_full_layers: float = 0,
    compute_bytes: int = 2,
    passes: int = 3,
    bytes_per_s: float = USUAL_BYTES_PER_S,
) -> HoursABillion:
    """For rows of `tokens`, a document each. Layers in full exchange their heads, as Ulysses does."""
    lengths = np.array([tokens])
    of_groups, of_all = (
        cost.step_flops(lengths, size, full) / (num_workers * flops_per_s)
        for size, full in ((group_size, num_full_layers), (2 * tokens, 0))
    )
    token = passes * cost.head_dim * compute_bytes / bytes_per_s
    others = (num_workers - 1) / num_workers
    ring = cost.layers * token * 2 * cost.kv_heads * tokens * others
    exchange = token * (2 * cost.heads + 2 * cost.kv_heads) * tokens / num_workers * others  # in a layer
    halo = token * 2 * max(1.0, cost.kv_heads / 2) * min(group_size, tokens) / 2 * (num_workers > 1)
    groups = max(of_groups, (cost.layers - num_full_layers) * halo) + num_full_layers * exchange
    rows = 1e9 / tokens / 3600
    return HoursABillion(rows * groups, rows * max(of_all, ring), rows * (of_all + cost.layers * exchange))
