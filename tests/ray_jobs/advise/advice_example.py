"""A tiny base and long documents to ask about. Run as a script, it asks in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import DOCUMENTS
from tests.ray_jobs.search_rope import search_example

WINDOW = 256


def write_base(folder: Path, tokenizer: Any) -> None:
    search_example.write_base(folder, tokenizer)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 128', f'"max_position_embeddings": {WINDOW}'))


def advice_params(folder: Path, **changes: Any) -> PipelineParams:
    """The base's window is 256 tokens and the target 1024."""
    advise: dict[str, Any] = {
        "arms": ["base", "scaling_only"], "questions_per_kind": 2, "overlaps": [0.0], "chunk_tokens": [32], "answer_tokens": 4,
        "note_tokens": 8, "passage_tokens": 96, "orders": ["none"],
        "controls": False, "ways": ["full", "chunks", "map_reduce", "route"],
    }  # fmt: skip
    return PipelineParams.model_validate(
        {
            "run_name": "tiny",
            "storage": str(folder / "storage"),
            "corpus": {"sources": ["nowhere"]},
            "chunking": {"segmenter": "fast"},
            "model": {"base": str(folder / "base"), "target_length": 1024, "rope_method": "yarn"},
            "advise": advise | changes,
        }
    )


def documents_of(storage: Storage, num_lines: int = 22) -> Artifact:
    """Four held-out documents of `num_lines` lines, about 16 tokens each, and one that is trained on."""

    def make(folder: Path) -> dict[str, Any]:
        rows = []
        for number in range(5):
            text = "".join(f"Bridge {line} of work {number} is old.\n" for line in range(num_lines))
            row = {"doc_id": f"d{number}", "text": text, "source_uri": "x", "record": 0, "num_bytes": len(text)}
            row |= {"source": "x", "byte_start": None, "byte_end": None, "format": "plain", "language": None}
            split = "heldout" if number else "train"
            rows.append(row | {"content_hash": "x", "licence": "CC0-1.0", "work": f"w{number}", "split": split})
        pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS), folder / "documents-00000-of-00001.parquet")
        return {}

    return storage.build("documents", stage="documents", params={"num_lines": num_lines}, code_version=1, parents={}, make=make)


if __name__ == "__main__":
    from ray_jobs.advise import advice_stage

    torch.set_num_threads(1)
    params = advice_params(Path(sys.argv[1]))
    here = Storage(params.storage)
    advice_stage.run(params, here, documents_of(here), None, lambda event: None)
