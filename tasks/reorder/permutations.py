"""Ranks in prompt order, for each strategy: pure functions of the number of passages and the measured curve.

Models recall the beginning and the end of a prompt better than its middle (Liu et al. 2023, "Lost in the Middle",
arXiv 2307.03172), so `important_first_last` fills the prompt from both ends inwards. It always puts the best passage first;
the reorderers of LangChain and LlamaIndex put it last if the number of passages is even.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_schemas.reorder import RecallPoint
from data_schemas.reorder_strategy import ReorderStrategy
from tasks.reorder.recall_curve import DepthRecall, curve_at, recall_at, why_not_calibrated

# Interpolated recalls that agree to this many digits are ties, so that rounding does not decide the order.
_TIE_DIGITS = 9


def permutation(
    strategy: ReorderStrategy, n: int, curve: Sequence[RecallPoint] = (), context_tokens: int | None = None
) -> list[int]:
    """Ranks 1..n in prompt order: element i is the rank of the passage at place i.

    `calibrated` uses the recall at a prompt of `context_tokens` (None: the longest measured length), and falls back to
    `important_first_last` if `why_not_calibrated(curve, context_tokens)` gives a reason.
    """
    if n < 0:
        raise ValueError(f"cannot order {n} passages")
    if strategy == "none":
        return list(range(1, n + 1))
    if strategy == "reverse_rank":
        return list(range(n, 0, -1))
    if strategy == "calibrated" and not why_not_calibrated(curve, context_tokens):
        return _by_measured_recall(n, curve_at(curve, context_tokens))
    return first_last(n)


def first_last(n: int) -> list[int]:
    """Rank 1 first, 2 last, 3 second, 4 second to last, and so on: 1 3 5 4 2 for n = 5."""
    return [*range(1, n + 1, 2), *range(n - n % 2, 0, -2)]


def _by_measured_recall(n: int, points: list[DepthRecall]) -> list[int]:
    """Rank r at the place with the r-th best recall; of equal places, the one that `first_last` fills earlier."""
    filled_as = first_last(n)
    recalls = [round(recall_at(i / (n - 1) if n > 1 else 0.0, points), _TIE_DIGITS) for i in range(n)]
    best_first = sorted(range(n), key=lambda place: (-recalls[place], filled_as[place]))
    ranks = [0] * n
    for rank, place in enumerate(best_first, start=1):
        ranks[place] = rank
    return ranks
