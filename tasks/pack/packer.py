"""Rows of whole sequences, by best-fit decreasing in bounded windows.

Bins that admit one length bucket only waste 11-26 % of the tokens, so rows mix lengths freely; windows keep the cost at
n log n in the window for any corpus size. The plan is a pure function of the lengths and the seed.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from data_schemas.params import PackingParams
from tasks.pack.buckets import BucketReport, sample_chunks
from tasks.pack.reading import sample_order

_ROW_ORDER_STREAM = 2**31  # keeps the row order's random stream apart from those of the buckets


@dataclass(frozen=True)
class PackingPlan:
    """`rows[r]` lists the sequences of row r by index; an index appears as often as it was sampled."""

    rows: list[list[int]]
    buckets: list[BucketReport]
    num_tokens: int
    target_length: int

    @property
    def waste(self) -> float:
        """Share of the rows' places that hold no token."""
        return 1 - self.num_tokens / (len(self.rows) * self.target_length) if self.rows else 0.0


def plan_rows(lengths: np.ndarray, target_length: int, params: PackingParams) -> PackingPlan:
    """Which sequences share a row; `lengths` are int [num_sequences], BOS and EOS included, each from 1 to the target.

    Raises ValueError for a length outside that range: the packer neither cuts nor drops a sequence.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= target_length:
        raise ValueError(f"sequence lengths from {lengths.min()} to {lengths.max()} do not fit rows of {target_length} tokens")
    chosen, reports = sample_chunks(lengths, target_length, params)
    rows: list[list[int]] = []
    for start in range(0, len(chosen), params.window_chunks):
        window = chosen[start : start + params.window_chunks]
        rows.extend([int(window[i]) for i in row] for row in best_fit_decreasing(lengths[window], target_length))
    order = sample_order(len(rows), params.seed, _ROW_ORDER_STREAM)
    return PackingPlan([rows[i] for i in order], reports, int(lengths[chosen].sum()), target_length)


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Indices of `lengths` grouped into rows: longest first, each into the fullest row that still has room for it.

    Johnson et al. 1974: at most 11/9 of the fewest rows possible, plus 4. Cost n log n but for shifting a sorted list of
    open rows, which stays cheap at the window sizes in use.
    """
    rows: list[list[int]] = []
    room: list[int] = []  # room left in each open row, ascending
    open_rows: list[int] = []  # and that row's number
    for i in np.argsort(-np.asarray(lengths, np.int64), kind="stable").tolist():
        length = int(lengths[i])
        place = bisect_left(room, length)
        if place < len(room):
            left, row = room.pop(place) - length, open_rows.pop(place)
            rows[row].append(i)
        else:
            left, row = capacity - length, len(rows)
            rows.append([i])
        if left:
            place = bisect_left(room, left)
            room.insert(place, left)
            open_rows.insert(place, row)
    return rows
