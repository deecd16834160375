"""Token sequences in files, and how those of one shard are read: in any order, with memory bounded by the row.

Files are read with `preadv` straight into the row's buffer, not memory-mapped: pages of a mapped file count as this process's
memory for as long as they stay, and reading past the end of a mapped file kills the process where a short read is an error.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from data_schemas.errors import UserError

_MOST_OPEN_FILES = 256


@dataclass(frozen=True, eq=False)
class SequencePart:
    """Sequences that lie end to end in `tokens`, a file of little-endian int32.

    `ends` is int64 [num_sequences], where each ends, counted in tokens; `chunk_ids` is a string array [num_sequences], which
    may lie in a memory-mapped file.
    """

    tokens: Path
    ends: np.ndarray
    chunk_ids: pa.Array


@dataclass(frozen=True, eq=False)
class ShardRows:
    """The rows of one shard: row r has the sequences `row_ends[r-1]:row_ends[r]` of the other arrays. Small, and picklable.

    `row_ends` int64 [num_rows]; `files` int32, `starts` int64 and `lengths` int32 [num_sequences] say in which of `paths` a
    sequence lies, from which token on, and how many it has; `chunk_ids` string [num_sequences].
    """

    row_ends: np.ndarray
    files: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    chunk_ids: pa.StringArray
    paths: tuple[Path, ...]


def gather(parts: Sequence[SequencePart], numbers: np.ndarray, row_ends: np.ndarray) -> ShardRows:
    """What a worker needs to write rows of the sequences `numbers`, which count through all parts in turn."""
    firsts = np.cumsum([0] + [len(part.ends) for part in parts])
    part_of = np.searchsorted(firsts, numbers, side="right") - 1
    order = np.argsort(part_of, kind="stable")
    starts = np.empty(len(numbers), np.int64)
    lengths = np.empty(len(numbers), np.int32)
    ids = []
    for number, places in _runs(part_of, order):
        part = parts[number]
        local = numbers[places] - firsts[number]
        ends = np.asarray(part.ends[local], np.int64)
        starts[places] = np.where(local > 0, part.ends[local - 1], 0)
        lengths[places] = ends - starts[places]
        ids.append(part.chunk_ids.take(pa.array(local)).cast(pa.string()))
    back = np.empty(len(numbers), np.int64)
    back[order] = np.arange(len(numbers))
    chunk_ids = pa.concat_arrays(ids).take(pa.array(back)) if ids else pa.array([], pa.string())
    paths = tuple(part.tokens for part in parts)
    return ShardRows(row_ends, part_of.astype(np.int32), starts, lengths, chunk_ids, paths)


def _runs(part_of: np.ndarray, order: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(part, places of its sequences), parts in rising order."""
    if not len(order):
        return []
    changes = np.flatnonzero(np.diff(part_of[order])) + 1
    return [(int(part_of[places[0]]), places) for places in np.split(order, changes)]


class TokenReader:
    """Reads runs of tokens from several files, of which a bounded number is open. A context manager."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, files: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """int32 [sum of lengths]: tokens from `starts` on of each of `files`, end to end. UserError where a file ends before."""
        stops = 4 * np.cumsum(lengths, dtype=np.int64)
        tokens = np.empty(int(lengths.sum(dtype=np.int64)), np.int32)
        view = memoryview(tokens).cast("B")
        begin = 0
        for file, offset, stop in zip(files.tolist(), (4 * starts).tolist(), stops.tolist(), strict=True):
            handle = self._open.get(file) or self._handle(file)
            if os.preadv(handle, [view[begin:stop]], offset) != stop - begin:
                self._read_slowly(file, offset, view[begin:stop])
            begin = stop
        return tokens

    def _read_slowly(self, file: int, offset: int, view: memoryview) -> None:
        """A read may give less than was asked for, up to nothing at the end of the file."""
        done = 0
        while done < len(view):
            count = os.preadv(self._handle(file), [view[done:]], offset + done)
            if not count:
                raise UserError(
                    f"{self._paths[file]} ends before token {(offset + len(view)) // 4}: it was cut short, delete it and run again."
                )
            done += count

    def _handle(self, file: int) -> int:
        if (handle := self._open.get(file)) is None:
            if len(self._open) >= _MOST_OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            handle = self._open[file] = os.open(self._paths[file], os.O_RDONLY)
        return handle

    def __enter__(self) -> TokenReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
