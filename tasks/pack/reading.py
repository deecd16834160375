"""Packed rows, memory-mapped. Needs pyarrow and numpy only."""

from __future__ import annotations

import json
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_schemas.errors import UserError


class PackedRows:
    """Random access to the rows of one folder of shards, without copying them.

    Shards are opened on first use, so that an instance can be sent to another process.
    """

    def __init__(self, directory: Path, shard_names: tuple[str, ...]) -> None:
        self.directory = directory
        self._shard_names = shard_names

    def __len__(self) -> int:
        return self._shard_ends[-1] if self._shard_ends else 0

    def __reduce__(self) -> tuple[type[PackedRows], tuple[Path, tuple[str, ...]]]:
        return PackedRows, (self.directory, self._shard_names)

    def row(self, index: int) -> dict[str, np.ndarray]:
        """`input_ids` int32 [num_tokens] and `seq_lengths` int32 [num_sequences], read-only views of the mapped file."""
        batch = self._batch(index)
        return {name: batch.column(name).values.to_numpy(zero_copy_only=True) for name in ("input_ids", "seq_lengths")}

    def chunk_ids(self, index: int) -> list[str]:
        """The chunk of each sequence of row `index`."""
        return self._batch(index).column("chunk_ids").values.to_pylist()

    def _batch(self, index: int) -> pa.RecordBatch:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        shard = bisect_right(self._shard_ends, index)
        return self._shards[shard][index - (self._shard_ends[shard - 1] if shard else 0)]

    @cached_property
    def _shards(self) -> list[list[pa.RecordBatch]]:
        return [list(pa.ipc.open_stream(pa.memory_map(str(self.directory / name)))) for name in self._shard_names]

    @cached_property
    def _shard_ends(self) -> list[int]:
        return list(accumulate(len(batches) for batches in self._shards))


def open_rows(directory: Path | str) -> PackedRows:
    """The rows below `directory`, as `tasks.pack.shards.write_shards` left them. UserError where there are none."""
    directory = Path(directory)
    try:
        state = json.loads((directory / "state.json").read_text())
    except FileNotFoundError as error:
        raise UserError(f"{directory} holds no packed rows (no state.json): run the prepare stage first.") from error
    return PackedRows(directory, tuple(file["filename"] for file in state["_data_files"]))


def sample_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [num_rows]: the row read at each step of an epoch, for any number of workers.

    Sorts the raw output of PCG64, which NumPy keeps stable between versions (unlike `Generator.permutation`).
    """
    raw = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(num_rows)
    return np.argsort(raw, kind="stable")
