"""Chunks as token sequences in files: workers that chunk write them, workers that write shards read them in any order.

Part number 7 of the corpus has two files for each split: `train-00007.tokens`, its sequences end to end as little-endian int32,
and `train-00007.entries`, an Arrow file with one row for each sequence. Numbers of sequences run through all parts of a split.

Tokens are read with `preadv` straight into the buffer of a shard's rows, not memory-mapped. Mapped pages would count as the
process's memory, and reading past the end of a mapped file kills the process, while a short read is only an error.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from data_schemas.errors import UserError
from data_schemas.parts import Parts

SPLITS = ("train", "heldout")
_ENTRIES = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("source", pa.int32()),
        ("num_tokens", pa.int32()),
        ("num_bytes", pa.int32()),  # of its text
        ("document_tokens", pa.int32()),
        ("is_first", pa.bool_()),  # of its document
    ]
)
_MOST_OPEN_FILES = 256


def tokens_name(split: str, part: int) -> str:
    return f"{split}-{part:05d}.tokens"


def entries_name(split: str, part: int) -> str:
    return f"{split}-{part:05d}.entries"


class SequenceWriter:
    """Writes the sequences of one part of the corpus, of both splits. A context manager; the files appear at its end."""

    def __init__(self, parts: Parts, part: int) -> None:
        self._parts = parts
        self._part = part
        self._files = ExitStack()
        self._entries: dict[str, list[tuple[str, int, int, int, int, bool]]] = {split: [] for split in SPLITS}

    def __enter__(self) -> SequenceWriter:
        self._tokens = {
            split: self._files.enter_context(self._parts.writing(tokens_name(split, self._part))).open("wb") for split in SPLITS
        }
        return self

    def append(
        self,
        split: str,
        doc_id: str,
        index: int,
        source: int,
        token_ids: np.ndarray | list[int],
        num_bytes: int,
        document_tokens: int,
    ) -> None:
        """One more sequence: chunk `index` of a document of `document_tokens`, from source number `source`.

        The chunks of a document follow each other. `num_bytes` are those of the chunk's text; tokens count BOS and EOS.
        """
        self._tokens[split].write(np.asarray(token_ids, "<i4").tobytes())  # ndarray.tofile would hide a full disk
        self._entries[split].append((f"{doc_id}:{index}", source, len(token_ids), num_bytes, document_tokens, index == 0))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for split in SPLITS:
                self._tokens[split].close()
                if error is None:
                    self._write_entries(split)
        except BaseException as failed:
            self._files.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._files.__exit__(kind, error, trace)

    def _write_entries(self, split: str) -> None:
        columns = zip(*self._entries[split], strict=True) if self._entries[split] else ((),) * len(_ENTRIES)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, _ENTRIES.types, strict=True)]
        with (
            self._parts.writing(entries_name(split, self._part)) as path,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, _ENTRIES) as writer,
        ):
            writer.write_table(pa.Table.from_arrays(arrays, schema=_ENTRIES))


@dataclass(frozen=True, eq=False)
class Entries:
    """All sequences of a split, in the order of the corpus; each array is int32 [num_sequences].

    lengths           tokens, BOS and EOS included
    sources           number of the source
    num_bytes         bytes of the text
    document_lengths  tokens of the whole document, BOS and EOS included
    documents         number of the document, from 0; the sequences of a document follow each other
    """

    lengths: np.ndarray
    sources: np.ndarray
    num_bytes: np.ndarray
    document_lengths: np.ndarray
    documents: np.ndarray

    def first(self, num_sequences: int) -> Entries:
        """The first `num_sequences` sequences."""
        fields = (self.lengths, self.sources, self.num_bytes, self.document_lengths, self.documents)
        return Entries(*(values[:num_sequences] for values in fields))


def read_entries(parts: Parts, num_parts: int, split: str) -> Entries:
    """The sequences of all parts of a split, in turn."""
    columns = ("num_tokens", "source", "num_bytes", "document_tokens", "is_first")
    found: dict[str, list[np.ndarray]] = {name: [np.empty(0, np.int32)] for name in columns}
    for part in range(num_parts):
        with parts.reading(entries_name(split, part)) as path, _mapped_entries(path) as table:
            for name in columns:
                found[name].append(table.column(name).to_numpy().astype(np.int32))
    lengths, sources, num_bytes, document_lengths, is_first = (np.concatenate(found[name]) for name in columns)
    return Entries(lengths, sources, num_bytes, document_lengths, np.cumsum(is_first, dtype=np.int32) - 1)


@contextmanager
def _mapped_entries(path: Path) -> Iterator[pa.Table]:
    with pa.memory_map(str(path)) as file:
        yield pa.ipc.open_file(file).read_all()


@dataclass(frozen=True, eq=False)
class Located:
    """Positions of sequences: `parts` int32, `starts` int64 and `lengths` int32 [n], in tokens of a part's file; chunk ids."""

    parts: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    chunk_ids: pa.StringArray

    def slice(self, start: int, end: int) -> Located:
        ids = self.chunk_ids.slice(start, end - start)
        return Located(self.parts[start:end], self.starts[start:end], self.lengths[start:end], ids)


class SequenceReader:
    """The sequences of one split, by number. Keeps a bounded number of files open, and no tokens in memory."""

    def __init__(self, parts: Parts, num_parts: int, split: str) -> None:
        self._parts = parts
        self._split = split
        self._firsts = np.cumsum([0, *(self._num_entries(part) for part in range(num_parts))])
        self._open: OrderedDict[int, int] = OrderedDict()

    def locate(self, numbers: np.ndarray) -> Located:
        """The positions of the sequences `numbers` int [n], in this order."""
        part_of = np.searchsorted(self._firsts, numbers, side="right") - 1
        order = np.argsort(part_of, kind="stable")
        starts, lengths = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int32)
        ids = [pa.array([], pa.string())]
        for places in np.split(order, np.flatnonzero(np.diff(part_of[order])) + 1) if len(order) else ():
            part = int(part_of[places[0]])
            local = numbers[places] - self._firsts[part]
            with _mapped_entries(self._parts.kept(entries_name(self._split, part))) as table:
                of_part = table.column("num_tokens").to_numpy()
                lengths[places] = of_part[local]
                starts[places] = (np.cumsum(of_part, dtype=np.int64) - of_part)[local]
                ids.append(table.column("chunk_id").take(pa.array(local)).combine_chunks())
        back = np.empty(len(numbers), np.int64)
        back[order] = np.arange(len(numbers))
        return Located(part_of.astype(np.int32), starts, lengths, pa.concat_arrays(ids).take(pa.array(back)))

    def read(self, located: Located) -> np.ndarray:
        """int32 [sum of lengths]: the tokens, end to end. UserError if a file is too short."""
        stops = 4 * np.cumsum(located.lengths, dtype=np.int64)
        tokens = np.empty(int(located.lengths.sum(dtype=np.int64)), np.int32)
        view = memoryview(tokens.data).cast("B")
        begin = 0
        for part, offset, stop in zip(located.parts.tolist(), (4 * located.starts).tolist(), stops.tolist(), strict=True):
            handle = self._open.get(part) or self._handle(part)
            if os.preadv(handle, [view[begin:stop]], offset) != stop - begin:
                self._read_slowly(part, offset, view[begin:stop])
            begin = stop
        return tokens

    def _read_slowly(self, part: int, offset: int, view: memoryview) -> None:
        """Repeats reads, each of which may return fewer bytes than requested, and none at the end of the file."""
        done = 0
        while done < len(view):
            count = os.preadv(self._handle(part), [view[done:]], offset + done)
            if not count:
                raise UserError(
                    f"{self._parts.place}/{tokens_name(self._split, part)} was cut short: delete that file's folder and run again."
                )
            done += count

    def _handle(self, part: int) -> int:
        if (handle := self._open.get(part)) is None:
            if len(self._open) >= _MOST_OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            handle = self._open[part] = os.open(self._parts.kept(tokens_name(self._split, part)), os.O_RDONLY)
        return handle

    def _num_entries(self, part: int) -> int:
        with pa.memory_map(str(self._parts.kept(entries_name(self._split, part)))) as file:
            reader = pa.ipc.open_file(file)
            return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()
