"""Packed rows, memory-mapped. Needs pyarrow and numpy only.

A shard ends with an index, so opening it reads a few bytes, however many rows it has. Reading a row makes two views of the
mapped file.
"""

from __future__ import annotations

import json
import mmap
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME

# A shard's index, int64 [num_rows, 5]; starts are in bytes of the file, the first one that of the row's Arrow message.
INDEX_COLUMNS = ("message_start", "tokens_start", "num_tokens", "lengths_start", "num_sequences")
_MARKS = ("loss_weights", "full_attention")
INDEX_MAGIC = b"ROPEROWS"  # follows the index, and is followed by the number of rows, int64


class Shard:
    """One shard, mapped. UserError if it is missing or cut short."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise _damaged(path, "is missing") from error
        except ValueError as error:
            raise _damaged(path, "is empty") from error
        end = len(self._map) - 16
        num_rows = int.from_bytes(self._map[end + 8 :], "little")
        start = end - 8 * len(INDEX_COLUMNS) * num_rows
        if end < 0 or self._map[end : end + 8] != INDEX_MAGIC or start < 0:
            raise _damaged(path, "is cut short")
        self.index = np.frombuffer(self._map, "<i8", len(INDEX_COLUMNS) * num_rows, start).reshape(num_rows, -1)

    def row(self, number: int) -> dict[str, np.ndarray]:
        _, tokens_start, num_tokens, lengths_start, num_sequences = self.index[number].tolist()
        row = {
            "input_ids": np.frombuffer(self._map, np.int32, num_tokens, tokens_start),
            "seq_lengths": np.frombuffer(self._map, np.int32, num_sequences, lengths_start),
        }
        return row | self._marks(number) if self._is_weighted else row

    def chunk_ids(self, number: int) -> list[str]:
        ids: list[str] = self._batch(number).column("chunk_ids").values.to_pylist()
        return ids

    def _marks(self, number: int) -> dict[str, np.ndarray]:
        """The columns that only some rows have."""
        batch = self._batch(number)
        columns = {name: batch.column(name)[0] for name in _MARKS}
        return {name: value.values.to_numpy(zero_copy_only=False) for name, value in columns.items() if value.is_valid}

    def _batch(self, number: int) -> pa.RecordBatch:
        return pa.ipc.read_record_batch(pa.py_buffer(self._map).slice(int(self.index[number, 0])), self._schema)

    @cached_property
    def _schema(self) -> pa.Schema:
        return pa.ipc.read_schema(pa.BufferReader(pa.py_buffer(self._map)))

    @cached_property
    def _is_weighted(self) -> bool:
        return set(_MARKS) <= set(self._schema.names)


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
        """`input_ids` int32 [num_tokens] and `seq_lengths` int32 [num_sequences], read-only views of the mapped file.

        A row with retrieval documents or conversations also has `loss_weights` float32 [num_tokens] and `full_attention` bool
        [num_sequences].
        """
        shard, number = self._locate(index)
        return shard.row(number)

    def chunk_ids(self, index: int) -> list[str]:
        """The chunk of each sequence of row `index`."""
        shard, number = self._locate(index)
        return shard.chunk_ids(number)

    @cached_property
    def mean_loss_weight(self) -> float:
        """The mean weight of the rows' targets, as the manifest beside them says; 1 without instruction data."""
        return float(self._summary.get("instructions", {}).get("mean_loss_weight", 1.0))

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins each document, as the manifest beside the rows says; None if there is none."""
        found: int | None = self._summary.get("bos_token_id")
        return found

    @cached_property
    def _summary(self) -> dict[str, Any]:
        try:
            summary: dict[str, Any] = json.loads((self.directory / MANIFEST_NAME).read_text())["summary"]
        except FileNotFoundError:
            return {}
        return summary

    def _locate(self, index: int) -> tuple[Shard, int]:
        ends = self._shard_ends
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        shard = bisect_right(ends, index)
        return self._shards[shard], index - (ends[shard - 1] if shard else 0)

    @cached_property
    def _shards(self) -> list[Shard]:
        return [Shard(self.directory / name) for name in self._shard_names]

    @cached_property
    def _shard_ends(self) -> list[int]:
        return list(accumulate(len(shard.index) for shard in self._shards))


def open_rows(directory: Path | str) -> PackedRows:
    """The rows in `directory`, as `tasks.pack.shards` writes them. UserError if there are none.

    A shard that is missing or cut short is a UserError at its first use. `Artifact.check` compares every byte with its hash.
    """
    directory = Path(directory)
    try:
        state = json.loads((directory / "state.json").read_text())
    except FileNotFoundError as error:
        raise UserError(f"{directory} holds no packed rows (no state.json): run the prepare stage first.") from error
    return PackedRows(directory, tuple(file["filename"] for file in state["_data_files"]))


def _damaged(path: Path, how: str) -> UserError:
    return UserError(f"The packed rows are damaged: {path} {how}. Delete its folder and run the prepare stage again.")


def sample_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [num_rows]: the row read at each step of an epoch, for any number of workers."""
    return shuffled(num_rows, seed, epoch)


def shuffled(num: int, *key: int) -> np.ndarray:
    """int64 [num]: the numbers below `num` in an order that is a function of the key (integers of 0 or more) alone.

    Sorts the raw output of PCG64, which NumPy keeps stable between versions (unlike `Generator.permutation`).
    """
    raw = np.random.PCG64(np.random.SeedSequence(key)).random_raw(num)
    order = np.argsort(raw)
    in_order = raw[order]
    if np.any(in_order[1:] == in_order[:-1]):  # equal keys: only a stable sort gives the same order on every machine
        return np.argsort(raw, kind="stable")
    return order
