"""A fixed base under every RoPE method, on fixed documents."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from ray_jobs.evaluate import compare_rope
from tests.golden.inputs import prose, write_base, write_documents

DOCUMENTS = {f"d{number}": ("heldout", "plain", prose(number + 10, 30)) for number in range(4)}


def output(folder: Path) -> Any:
    params = PipelineParams.model_validate(
        {
            "run_name": "golden",
            "storage": str(folder / "storage"),
            "corpus": {"sources": ["nowhere"]},
            "model": {"base": str(write_base(folder / "base", window=64)), "target_length": 256},
            "evaluation": {"target_tokens": 16},
        }
    )
    storage = Storage(params.storage)
    documents = storage.build(
        "documents", stage="golden", params={}, code_version=1, parents={}, make=lambda path: write_documents(path, DOCUMENTS)
    )
    artifact = compare_rope.run(params, storage, documents, 3, lambda _: None)
    return {
        "samples": pq.read_table(artifact.path / "rope_samples.parquet").to_pydict(),
        "report": json.loads((artifact.path / "rope_comparison.json").read_text()),
        "files": [entry.path for entry in artifact.manifest.files],
    }
