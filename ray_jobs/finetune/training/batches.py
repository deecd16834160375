"""Which rows a worker sees at a step: a pure function of (seed, step), whatever the number of workers.

The rows of an optimizer step are fixed first and then dealt to ranks by the cost of their attention. So a run that continues with
fewer or more workers sees the same samples, each once an epoch, and no rank waits long for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from ray_jobs.finetune.segments import with_host_copy
from ray_jobs.finetune.sequence_parallel.attention import RowPart
from ray_jobs.finetune.training.balance import attention_cost, deal, group_similar
from tasks.pack.reading import sample_order


class Rows(Protocol):
    """Packed rows, as `tasks.pack.reading.open_rows` gives them."""

    def __len__(self) -> int: ...
    def row(
        self, index: int
    ) -> dict[str, np.ndarray]: ...  # "full_attention", "loss_weights" and "short_window" where there are any
    def chunk_ids(self, index: int) -> list[str]: ...


PositionsOfRow = Callable[[int, np.ndarray], np.ndarray]
"""(a row's index, the lengths of its documents [num_documents]) -> its positions int64 [T], which start at 0 in each document and grow."""


@dataclass(frozen=True)
class MicroBatch:
    """Concatenated rows: `input_ids` and `position_ids` [1, T]; positions restart at each document.

    `in_full` bool [1, T] is True at the tokens of documents that attend in full; None if there are none. With `scored`, bool
    [1, T], only the tokens with True count in the loss. `loss_weights` float32 [1, T] are those that the shards state for each token
    as a target; None if they state none. `short` bool [1, T] is True at tokens that turn with the frequencies for short prompts; None if
    there are none. `part` is set where the tokens are one worker's part of a row, which `whole` has.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    in_full: torch.Tensor | None = None
    scored: torch.Tensor | None = None
    loss_weights: torch.Tensor | None = None
    short: torch.Tensor | None = None
    part: RowPart | None = None
    whole: MicroBatch | None = None


class StepOrder:
    """The rows of each optimizer step. Epochs follow one another without a gap, so a step may span two.

    With `costs` float [num_rows], rows of similar cost are put in the same step, within windows of `window_steps` steps; see
    `ray_jobs.finetune.training.balance`. The first step begins after `rows_read` rows.
    """

    def __init__(
        self,
        num_rows: int,
        rows_per_step: int,
        seed: int,
        costs: np.ndarray | None = None,
        window_steps: int = 1,
        rows_read: int = 0,
    ) -> None:
        if window_steps > 1 and costs is None:
            raise ValueError("window_steps above 1 needs the costs of the rows")
        self._num_rows = num_rows
        self._rows_per_step = rows_per_step
        self._seed = seed
        self._costs = costs
        self._window_steps = window_steps
        self._rows_read = rows_read
        self._epochs: dict[int, np.ndarray] = {}

    def rows(self, step: int) -> list[int]:
        """Row indices of one step."""
        first = self._rows_read + step * self._rows_per_step
        places = (divmod(sample, self._num_rows) for sample in range(first, first + self._rows_per_step))
        return [int(self._epoch(epoch)[place]) for epoch, place in places]

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            order = sample_order(self._num_rows, self._seed, epoch)
            if self._costs is not None and self._window_steps > 1:
                order = group_similar(order, self._costs, self._rows_per_step, self._window_steps, self._seed, epoch)
            kept = {number: known for number, known in self._epochs.items() if number == epoch - 1}
            self._epochs = kept | {epoch: order}
        return self._epochs[epoch]


@lru_cache(maxsize=4)
def _step_order(num_rows: int, rows_per_step: int, seed: int) -> StepOrder:
    return StepOrder(num_rows, rows_per_step, seed)


def rows_of_step(step: int, rows_per_step: int, num_rows: int, seed: int) -> list[int]:
    """Row indices of an optimizer step in the plain order."""
    return _step_order(num_rows, rows_per_step, seed).rows(step)


def costs_of_rows(rows: Rows, indices: Sequence[int], group_size: int | None = None, full_share: float = 0.0) -> np.ndarray:
    """float64 [len(indices)]: the cost of each row's attention, from its sequence lengths; see `attention_cost`."""
    read = (rows.row(i) for i in indices)
    return np.array([attention_cost(r["seq_lengths"], group_size, full_share, r.get("full_attention")).sum() for r in read])


def rows_of_rank(
    step_rows: list[int], rank: int, world_size: int, micro_batch_rows: int, costs: np.ndarray | None = None
) -> list[list[int]]:
    """This rank's rows of a step, in micro batches: dealt for about equal cost, or in turn without `costs` [R]."""
    if costs is None:
        mine = step_rows[rank::world_size]
    else:
        ranks = deal(np.asarray(costs, np.float64)[None], world_size)[0]
        mine = [row for row, dealt_to in zip(step_rows, ranks.tolist(), strict=True) if dealt_to == rank]
    return [mine[i : i + micro_batch_rows] for i in range(0, len(mine), micro_batch_rows)]


def num_targets(rows: Rows, indices: list[int]) -> int:
    """Number of tokens that are predicted in these rows: all but each document's first."""
    return sum(len(r["input_ids"]) - len(r["seq_lengths"]) for r in (rows.row(i) for i in indices))


def positions_without_gaps(row: int, lengths: np.ndarray) -> np.ndarray:
    """0, 1, 2 ... in each document."""
    return np.concatenate([np.arange(n) for n in lengths])


def read_micro_batch(
    rows: Rows, indices: list[int], device: torch.device, positions_of: PositionsOfRow = positions_without_gaps
) -> MicroBatch:
    """Concatenate rows, without padding. Positions count 0, 1, 2 ... in each document unless `positions_of` says otherwise."""
    read = [rows.row(i) for i in indices]
    ids = np.concatenate([r["input_ids"] for r in read])
    positions = np.concatenate([positions_of(i, r["seq_lengths"]) for i, r in zip(indices, read, strict=True)])
    in_full, weights, short = (
        _marked(read, "full_attention", device), _loss_weights(read, device), _marked(read, "short_window", device),
    )  # fmt: skip
    return MicroBatch(_as_row(ids, device), _as_row(positions, device), in_full, loss_weights=weights, short=short)


def _loss_weights(read: list[dict[str, np.ndarray]], device: torch.device) -> torch.Tensor | None:
    """Float32 [1, T]; None where no row has weights."""
    if not any("loss_weights" in r for r in read):
        return None
    of_rows = [r.get("loss_weights", np.ones(len(r["input_ids"]), np.float32)) for r in read]
    return torch.from_numpy(np.concatenate(of_rows))[None].to(device)


def _marked(read: list[dict[str, np.ndarray]], mark: str, device: torch.device) -> torch.Tensor | None:
    """Bool [1, T] of a column of marks by document; None where none is marked, so that such a batch is computed as if there were none."""
    if not any(np.any(r.get(mark, False)) for r in read):
        return None
    of_rows = [np.repeat(r.get(mark, np.zeros(len(r["seq_lengths"]), bool)), r["seq_lengths"]) for r in read]
    values = np.concatenate(of_rows)[None]
    return with_host_copy(torch.from_numpy(values).to(device), values)


def _as_row(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """int64 [1, T]."""
    row = values.astype(np.int64)[None]
    return with_host_copy(torch.from_numpy(row).to(device), row)
