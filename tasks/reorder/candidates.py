"""The orders that are measured against each other to choose a config's strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_schemas.reorder import RecallPoint
from data_schemas.reorder_strategy import ReorderStrategy
from tasks.reorder.permutations import permutation
from tasks.reorder.recall_curve import why_not_calibrated

RANDOM = "random"
_UNCALIBRATED: tuple[ReorderStrategy, ...] = ("none", "important_first_last", "reverse_rank")


def compared_strategies(lengths: Iterable[int], curve: Sequence[RecallPoint]) -> tuple[str, ...]:
    """The strategies to measure at these context lengths. `calibrated` is one if the curve tells positions apart at one length or
    more; at the other lengths it falls back, as in use."""
    is_calibrated = any(not why_not_calibrated(curve, length) for length in lengths)
    return (*_UNCALIBRATED, *(("calibrated",) if is_calibrated else ()), RANDOM)


def candidate_orders(
    strategies: Iterable[str], num_passages: int, context_tokens: int, curve: Sequence[RecallPoint], seed: int
) -> Mapping[str, list[int]]:
    """Ranks in prompt order by strategy; `random` is drawn from `seed` and the number of passages."""
    orders: dict[str, list[int]] = {}
    for name in strategies:
        if name == RANDOM:
            orders[name] = (np.random.default_rng([seed, num_passages]).permutation(num_passages) + 1).tolist()
        else:
            strategy: ReorderStrategy = name  # type: ignore[assignment]
            orders[name] = permutation(strategy, num_passages, curve, context_tokens)
    return orders
