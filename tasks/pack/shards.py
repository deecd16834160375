"""Arrow IPC stream shards that `datasets.load_from_disk` opens memory-mapped.

Uncompressed, one row a record batch: a row is then one contiguous run of int32 in the file, read without a copy. The
files are a pure function of the rows, so two runs write the same bytes.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_schemas.manifest import hash_file
from data_schemas.tables import PACKED_ROWS

_BATCH_OVERHEAD_BYTES = 800  # message header and padding of one record batch


@dataclass(frozen=True)
class Sequence32:
    """One sequence of a row: its token ids with BOS and EOS, int32 [num_tokens]."""

    chunk_id: str
    token_ids: np.ndarray


def write_shards(
    directory: Path,
    rows: Sequence[Sequence[int]],
    lengths: np.ndarray,
    load: Callable[[int], Sequence32],
    shard_megabytes: float,
    split: str,
) -> None:
    """Write `rows` (lists of sequence numbers) as shards of about `shard_megabytes` into `directory`.

    `lengths` holds the number of tokens of each sequence, `load` gives a sequence by its number.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shards = _split_into_shards(rows, lengths, shard_megabytes * 1e6)
    schema = PACKED_ROWS.with_metadata({"huggingface": json.dumps({"info": {"features": _FEATURES}})})
    names = [f"data-{i:05d}-of-{len(shards):05d}.arrow" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        with pa.OSFile(str(directory / name), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for row in shard:
                writer.write_batch(_record_batch([load(i) for i in row], schema))
    digest = hashlib.sha256("\n".join(hash_file(directory / name) for name in names).encode())
    _write_json(directory / "state.json", _state(names, digest.hexdigest()[:16], split))
    _write_json(directory / "dataset_info.json", _DATASET_INFO)


def _split_into_shards(rows: Sequence[Sequence[int]], lengths: np.ndarray, shard_bytes: float) -> list[list[Sequence[int]]]:
    shards: list[list[Sequence[int]]] = []
    size = 0.0
    for row in rows:
        row_bytes = 4 * int(lengths[list(row)].sum()) + 32 * len(row) + _BATCH_OVERHEAD_BYTES
        if not shards or size + row_bytes > shard_bytes:
            shards.append([])
            size = 0.0
        shards[-1].append(row)
        size += row_bytes
    return shards


def _record_batch(sequences: list[Sequence32], schema: pa.Schema) -> pa.RecordBatch:
    tokens = np.concatenate([s.token_ids for s in sequences]).astype(np.int32, copy=False)
    seq_lengths = np.array([len(s.token_ids) for s in sequences], np.int32)
    columns = [
        _list_of_one(pa.array(tokens)),
        _list_of_one(pa.array(seq_lengths)),
        _list_of_one(pa.array([s.chunk_id for s in sequences], pa.string())),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _list_of_one(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _list_feature(dtype: str) -> dict[str, Any]:
    return {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "List"}


# What `Dataset.save_to_disk` of datasets 5 writes, with a fingerprint that depends on the content alone.
_FEATURES = {"input_ids": _list_feature("int32"), "seq_lengths": _list_feature("int32"), "chunk_ids": _list_feature("string")}
_DATASET_INFO = {"citation": "", "description": "", "features": _FEATURES, "homepage": "", "license": ""}


def _state(names: list[str], fingerprint: str, split: str) -> dict[str, Any]:
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
