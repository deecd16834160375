"""Arrow IPC stream shards that `datasets.load_from_disk` opens memory-mapped, each followed by an index.

Shards are uncompressed with one row a record batch, so a row is one contiguous run of int32 in the file, read without a copy.
An index for `tasks.pack.reading` follows the stream's end mark, where Arrow readers stop: int64 [num_rows, 5], INDEX_COLUMNS,
then INDEX_MAGIC and the number of rows. The files are a pure function of the rows, so any run with any number of workers
writes the same bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_schemas.tables import PACKED_ROWS, WEIGHTED_ROWS
from tasks.pack.packer import PackingPlan
from tasks.pack.reading import INDEX_COLUMNS, INDEX_MAGIC
from tasks.pack.sequences import Located, SequenceReader
from tasks.pack.token_weights import WeightReader

_ROW_BYTES, _SEQUENCE_BYTES = 650, 40  # message header, padding and index of a row; length and id of a sequence
_BUFFER_BYTES = 2**16
_BLOCK_TOKENS = 2**21  # tokens in memory while writing, unless a row has more; a row's padding depends on where a block ends


def shard_name(number: int, num_shards: int) -> str:
    return f"data-{number:05d}-of-{num_shards:05d}.arrow"


def split_into_shards(plan: PackingPlan, lengths: np.ndarray, shard_megabytes: float) -> list[tuple[int, int]]:
    """Row ranges [first, last) of shards of about `shard_megabytes`; a larger row gets a shard of its own."""
    tokens = np.add.reduceat(lengths[plan.members], _starts(plan.row_ends), dtype=np.int64)
    ends = np.cumsum(4 * tokens + _SEQUENCE_BYTES * np.diff(plan.row_ends, prepend=0) + _ROW_BYTES)
    return list(_ranges(ends, shard_megabytes * 1e6))


def write_shard(path: Path, rows: Sequence[np.ndarray], sequences: SequenceReader, weights: WeightReader | None = None) -> None:
    """Write one shard; each of `rows` holds the numbers of its sequences. The bytes depend on these and the sequences alone.

    With `weights` the rows have the columns of WEIGHTED_ROWS.
    """
    row_ends = np.cumsum([len(row) for row in rows])
    located = sequences.locate(np.concatenate([np.empty(0, np.int64), *rows]))
    row_tokens = np.add.reduceat(located.lengths, _starts(row_ends), dtype=np.int64)
    features = {"huggingface": json.dumps({"info": {"features": _features(weights is not None)}})}
    schema = (PACKED_ROWS if weights is None else WEIGHTED_ROWS).with_metadata(features)
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.BufferedOutputStream(file, _BUFFER_BYTES) as buffered,
        pa.ipc.new_stream(buffered, schema) as writer,
    ):
        for first, last in _ranges(np.cumsum(row_tokens), _BLOCK_TOKENS):
            start, end = int(row_ends[first - 1]) if first else 0, int(row_ends[last - 1])
            block = located.slice(start, end)
            ends_of_rows = row_ends[first:last] - start
            columns = _columns(block, sequences.read(block), row_tokens[first:last], ends_of_rows)
            if weights is not None:
                columns += _weight_columns(block, weights, row_tokens[first:last], ends_of_rows)
            table = pa.Table.from_arrays(columns, schema=schema)
            writer.write_table(table, max_chunksize=1)
    index = _locate_rows(path, len(rows))
    with path.open("ab") as file:
        file.write(index.astype("<i8").tobytes() + INDEX_MAGIC + len(rows).to_bytes(8, "little"))


def write_dataset_files(
    directory: Path, names: Sequence[str], hashes: Sequence[str], split: str, is_weighted: bool = False
) -> None:
    """Write state.json and dataset_info.json, as `Dataset.save_to_disk` of datasets 5 does.

    `hashes` are the shards' SHA-256. They determine the fingerprint by which `datasets` caches. `is_weighted`: the rows have the
    columns of WEIGHTED_ROWS.
    """
    fingerprint = hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]
    _write_json(directory / "state.json", _state(names, fingerprint, split))
    _write_json(
        directory / "dataset_info.json",
        {"citation": "", "description": "", "features": _features(is_weighted), "homepage": "", "license": ""},
    )


def _starts(row_ends: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], row_ends])[:-1].astype(np.int64)


def _ranges(ends: np.ndarray, most: float) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of rows, each of at most `most` or of one row; `ends` is the running sum of the rows' sizes."""
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield first, last
        first = last


def _columns(block: Located, tokens: np.ndarray, row_tokens: np.ndarray, row_ends: np.ndarray) -> list[pa.Array]:
    """The columns of PACKED_ROWS of some rows; `tokens` are few enough for int32 offsets."""
    return [
        _lists(np.cumsum(row_tokens), pa.array(tokens)),
        _lists(row_ends, pa.array(block.lengths)),
        _lists(row_ends, block.chunk_ids),
    ]


def _weight_columns(block: Located, weights: WeightReader, row_tokens: np.ndarray, row_ends: np.ndarray) -> Iterator[pa.Array]:
    """The further columns of WEIGHTED_ROWS; null in rows where every token has weight 1 and no sequence attends in full."""
    in_row = np.add.reduceat(weights.has_weights(block), _starts(row_ends), dtype=np.int64) > 0
    yield _nullable_lists(row_tokens, weights.read(block), in_row)
    yield _nullable_lists(np.diff(row_ends, prepend=0), weights.attends_in_full(block), in_row)


def _nullable_lists(sizes: np.ndarray, values: np.ndarray, is_there: np.ndarray) -> pa.ListArray:
    """Lists of these sizes, `values` end to end; null where it is not there."""
    ends = np.cumsum(np.where(is_there, sizes, 0))
    kept = pa.array(values[np.repeat(is_there, sizes)])
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, kept, mask=pa.array(~is_there))


def _lists(ends: np.ndarray, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]).astype(np.int32)), values)


def _locate_rows(path: Path, num_rows: int) -> np.ndarray:
    """int64 [num_rows, 5], INDEX_COLUMNS: read back from the file, so everything in it has been parsed once."""
    index = np.empty((num_rows, len(INDEX_COLUMNS)), np.int64)
    with pa.memory_map(str(path)) as file:
        base = file.read_buffer(8).address
        file.seek(0)
        reader = pa.ipc.open_stream(file)
        for row in range(num_rows):
            message = file.tell()
            batch = reader.read_next_batch()
            tokens, lengths = batch.column(0).values, batch.column(1).values
            tokens_start, lengths_start = tokens.buffers()[1].address - base, lengths.buffers()[1].address - base
            index[row] = message, tokens_start, len(tokens), lengths_start, len(lengths)
    return index


def _list_feature(dtype: str) -> dict[str, Any]:
    return {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "List"}


def _features(is_weighted: bool) -> dict[str, Any]:
    kinds = {"input_ids": "int32", "seq_lengths": "int32", "chunk_ids": "string"}
    further = {"loss_weights": "float32", "full_attention": "bool"} if is_weighted else {}
    return {name: _list_feature(kind) for name, kind in (kinds | further).items()}


def _state(names: Sequence[str], fingerprint: str, split: str) -> dict[str, Any]:
    return {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
