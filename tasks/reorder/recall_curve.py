"""Recall over depth at one context length, interpolated from the lengths that were measured.

Between two measured lengths recall and its bounds are linear in tokens, between two depths linear in depth; beyond the
outermost measurement they stay constant.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_schemas.reorder import RecallPoint


@dataclass(frozen=True)
class DepthRecall:
    """Recall and its interval at one relative depth."""

    depth: float
    recall: float
    low: float
    high: float


def curve_at(curve: Sequence[RecallPoint], context_tokens: int | None = None) -> list[DepthRecall]:
    """The curve at `context_tokens` (None: the longest measured length), by depth; empty if nothing was measured.

    It has fewer than two depths if a measured length that it is interpolated from lacks one value at each of two or more depths;
    `why_not_calibrated` refuses that.
    """
    lengths = sorted({point.length for point in curve})
    if not lengths:
        return []
    size = lengths[-1] if context_tokens is None else min(max(context_tokens, lengths[0]), lengths[-1])
    upper = next(length for length in lengths if length >= size)
    lower = max(length for length in lengths if length <= size)
    below, above = _measured(curve, lower), _measured(curve, upper)
    if lower == upper or len(below) < 2 or len(above) < 2:
        return min(below, above, key=len)
    return _between(below, above, (size - lower) / (upper - lower))


def why_not_calibrated(curve: Sequence[RecallPoint], context_tokens: int | None = None) -> str:
    """One sentence why the curve does not tell positions apart; empty if it does.

    A curve is flat within its intervals if one constant recall lies inside all of them.
    """
    points = curve_at(curve, context_tokens)
    if not curve:
        return "No recall by position was measured, so important_first_last is used."
    tokens = context_tokens or max(point.length for point in curve)
    if len(points) < 2:
        return f"Recall at {tokens} tokens lacks one value at each of two or more depths, so important_first_last is used."
    if max(point.low for point in points) <= min(point.high for point in points):
        return f"Recall at {tokens} tokens is flat within its intervals, so important_first_last is used."
    return ""


def recall_at(depth: float, points: Sequence[DepthRecall]) -> float:
    """Recall at `depth`, linear between the depths of `points` and constant beyond the outermost."""
    return _interpolate(depth, points, lambda point: point.recall)


def _measured(curve: Sequence[RecallPoint], length: int) -> list[DepthRecall]:
    """The points of one measured length, by depth; none if a depth has two values."""
    points = sorted((point for point in curve if point.length == length), key=lambda point: point.depth)
    if len({point.depth for point in points}) < len(points):
        return []
    return [DepthRecall(point.depth, point.recall, point.low, point.high) for point in points]


def _between(below: list[DepthRecall], above: list[DepthRecall], share: float) -> list[DepthRecall]:
    def mixed(depth: float, value: Callable[[DepthRecall], float]) -> float:
        return (1 - share) * _interpolate(depth, below, value) + share * _interpolate(depth, above, value)

    return [
        DepthRecall(depth, mixed(depth, lambda p: p.recall), mixed(depth, lambda p: p.low), mixed(depth, lambda p: p.high))
        for depth in sorted({point.depth for point in (*below, *above)})
    ]


def _interpolate(depth: float, points: Sequence[DepthRecall], value: Callable[[DepthRecall], float]) -> float:
    right = bisect_right([point.depth for point in points], depth)
    if right == 0:
        return value(points[0])
    if right == len(points):
        return value(points[-1])
    left_point, right_point = points[right - 1], points[right]
    share = (depth - left_point.depth) / (right_point.depth - left_point.depth)
    return value(left_point) + share * (value(right_point) - value(left_point))
