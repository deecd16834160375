"""Chunks and rows of fixed documents, for each chunking strategy and with two ways of packing."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from tasks.pack import shards_stage
from tasks.pack.reading import open_rows
from tests.golden.inputs import prose, story, workers_here, write_base, write_documents

PROGRAM = """import os


class Bridge:
    '''It hangs.'''

    def cross(self) -> int:
        return 1
"""
DOCUMENTS = {
    "novel": ("train", "markdown", story(1, 9)),
    "essay": ("train", "plain", f"{prose(2, 20)}\n\n{prose(3, 20)}\n\n{prose(4, 2)}"),
    "note": ("train", "plain", prose(5, 2)),
    "unbroken": ("train", "plain", "x" * 400 + " " + "Ünïcödé, " * 40),
    "program": ("train", "python", PROGRAM * 6),
    "kept": ("heldout", "markdown", story(6, 3)),
}
RUNS: dict[str, dict[str, Any]] = {
    "semantic": {"chunking": {"strategy": "semantic", "max_tokens": 120}, "packing": {}},
    "overlap": {"chunking": {"strategy": "overlap", "max_tokens": 100}, "packing": {"bucket_repeats": {128: 2}, "seed": 3}},
    "fixed": {"chunking": {"strategy": "fixed", "max_tokens": 256}, "packing": {"window_chunks": 7}},
    "whole documents": {"chunking": {}, "packing": {"recipe": "long_context_mix", "min_bucket": 64}},
}


def output(folder: Path) -> Any:
    """{run: chunks (id, characters, tokens, headings), rows of both splits and the summary}."""
    base = write_base(folder / "base", window=64)
    storage = Storage(str(folder / "storage"))
    documents = storage.build(
        "documents", stage="golden", params={}, code_version=1, parents={}, make=lambda path: write_documents(path, DOCUMENTS)
    )
    made = {}
    for name, groups in RUNS.items():
        mapping = {
            "run_name": "golden", "storage": str(folder / "storage"), "corpus": {"sources": [{"uri": "x", "name": "x"}]},
            "model": {"base": str(base), "target_length": 512},
        }  # fmt: skip
        params = PipelineParams.model_validate(mapping | groups)
        made[name] = described(shards_stage.run(params, storage, documents, workers_here, lambda _: None))
    return made


def described(shards: Artifact) -> Any:
    chunks = pa.concat_tables([pq.read_table(path) for path in sorted(shards.path.glob("chunks-*.parquet"))]).to_pylist()
    return {
        "chunks": [
            f"{c['chunk_id']} {c['char_start']}-{c['char_end']} {c['num_tokens']} tokens, {' > '.join(c['heading_path'])}"
            for c in chunks
        ],
        "rows": {split: rows_of(path) for split, path in (("train", shards.path), ("heldout", shards.path / "heldout"))},
        "summary": shards.manifest.summary,
        "files": [entry.path for entry in shards.manifest.files],
    }


def rows_of(folder: Path) -> list[str]:
    """Lengths of the sequences, their chunks, and a hash of the token ids, a row."""
    rows, told = open_rows(folder), []
    for number in range(len(rows)):
        row = rows.row(number)
        hashed = hashlib.sha256(row["input_ids"].astype("<i4").tobytes()).hexdigest()[:16]
        told.append(f"{[int(n) for n in row['seq_lengths']]} {list(rows.chunk_ids(number))} {hashed}")
    return told
