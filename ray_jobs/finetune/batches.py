"""Which rows a worker sees at a step: a pure function of (seed, step), whatever the number of workers.

The rows of an optimizer step are fixed first and dealt to ranks afterwards, so a run that goes on with fewer or more
workers sees the same samples, each once an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from tasks.pack.reading import sample_order


class Rows(Protocol):
    """Packed rows, as `tasks.pack.reading.open_rows` gives them."""

    def __len__(self) -> int: ...
    def row(self, index: int) -> dict[str, np.ndarray]: ...
    def chunk_ids(self, index: int) -> list[str]: ...


@dataclass(frozen=True)
class MicroBatch:
    """Rows laid end to end: `input_ids` and `position_ids` [1, T]; positions restart at each document."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    row_indices: tuple[int, ...]


@lru_cache(maxsize=2)
def _epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return sample_order(num_rows, seed, epoch)


def rows_of_step(step: int, rows_per_step: int, num_rows: int, seed: int) -> list[int]:
    """Row indices of an optimizer step; epochs follow one another without a gap."""
    first = step * rows_per_step
    return [int(_epoch_order(num_rows, seed, i // num_rows)[i % num_rows]) for i in range(first, first + rows_per_step)]


def rows_of_rank(step_rows: list[int], rank: int, world_size: int, micro_batch_rows: int) -> list[list[int]]:
    """This rank's share of a step, in micro batches."""
    mine = step_rows[rank::world_size]
    return [mine[i : i + micro_batch_rows] for i in range(0, len(mine), micro_batch_rows)]


def num_targets(rows: Rows, indices: list[int]) -> int:
    """Tokens that are predicted in these rows: all but each document's first."""
    return sum(len(r["input_ids"]) - len(r["seq_lengths"]) for r in (rows.row(i) for i in indices))


def read_micro_batch(rows: Rows, indices: list[int], device: torch.device) -> MicroBatch:
    """Concatenate rows; no padding, so none is computed on."""
    read = [rows.row(i) for i in indices]
    ids = np.concatenate([r["input_ids"] for r in read]).astype(np.int64)
    positions = np.concatenate([np.arange(n) for r in read for n in r["seq_lengths"]])
    return MicroBatch(
        torch.from_numpy(ids)[None].to(device), torch.from_numpy(positions.astype(np.int64))[None].to(device), tuple(indices)
    )
