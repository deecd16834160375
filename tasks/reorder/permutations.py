"""Ranks in prompt order, for each strategy: pure functions of the number of passages and the measured curve.

Models recall the beginning and the end of a prompt better than its middle (Liu et al. 2023, "Lost in the Middle",
arXiv 2307.03172), so `important_first_last` fills the prompt from both ends inwards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from data_schemas.params import ReorderStrategy
from data_schemas.reorder import RecallPoint

# Interpolated recalls that agree to this many digits are ties, so that the order does not hang on rounding.
_TIE_DIGITS = 9


def permutation(strategy: ReorderStrategy, n: int, curve: Sequence[RecallPoint] = ()) -> list[int]:
    """Ranks 1..n in prompt order: element i is the rank of the passage that stands at place i.

    `calibrated` falls back to `important_first_last` where `why_not_calibrated(curve)` says so.
    """
    if n < 0:
        raise ValueError(f"cannot order {n} passages")
    if strategy == "none":
        return list(range(1, n + 1))
    if strategy == "reverse_rank":
        return list(range(n, 0, -1))
    if strategy == "calibrated" and not why_not_calibrated(curve):
        return _by_measured_recall(n, longest_curve(curve))
    return first_last(n)


def first_last(n: int) -> list[int]:
    """Rank 1 first, 2 last, 3 second, 4 second to last, and so on: 1 3 5 4 2 for n = 5."""
    return [*range(1, n + 1, 2), *range(n - n % 2, 0, -2)]


def longest_curve(curve: Sequence[RecallPoint]) -> list[RecallPoint]:
    """The points of the longest context length, by depth."""
    longest = max((point.length for point in curve), default=0)
    return sorted((point for point in curve if point.length == longest), key=lambda point: point.depth)


def why_not_calibrated(curve: Sequence[RecallPoint]) -> str:
    """Empty if the curve tells positions apart, else one sentence that says why it does not.

    A curve is flat within its intervals when one constant recall lies inside all of them.
    """
    points = longest_curve(curve)
    depths = [point.depth for point in points]
    if not points:
        return "No recall by position was measured, so important_first_last is used."
    if len(set(depths)) < 2 or len(set(depths)) < len(depths):
        return f"Recall at {points[0].length} tokens lacks one value at each of two or more depths, so important_first_last is used."
    if max(point.low for point in points) <= min(point.high for point in points):
        return f"Recall at {points[0].length} tokens is flat within its intervals, so important_first_last is used."
    return ""


def _by_measured_recall(n: int, points: list[RecallPoint]) -> list[int]:
    """Rank r at the place with the r-th best recall; among equal places the one `first_last` fills earlier."""
    filled_as = first_last(n)
    recalls = [round(_interpolate(i / (n - 1) if n > 1 else 0.0, points), _TIE_DIGITS) for i in range(n)]
    best_first = sorted(range(n), key=lambda place: (-recalls[place], filled_as[place]))
    ranks = [0] * n
    for rank, place in enumerate(best_first, start=1):
        ranks[place] = rank
    return ranks


def _interpolate(depth: float, points: list[RecallPoint]) -> float:
    """Recall at `depth`, linear between measured depths and constant beyond the outermost."""
    depths = [point.depth for point in points]
    right = bisect_right(depths, depth)
    if right == 0:
        return points[0].recall
    if right == len(points):
        return points[-1].recall
    left_point, right_point = points[right - 1], points[right]
    share = (depth - left_point.depth) / (right_point.depth - left_point.depth)
    return left_point.recall + share * (right_point.recall - left_point.recall)
