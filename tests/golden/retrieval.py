"""Retrieval documents of all kinds from fixed documents, as plain text and through a chat template."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from tasks.retrieval import retrieval_stage
from tests.golden.inputs import story, workers_here, write_base, write_documents

TARGET = 768
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"


def output(folder: Path) -> Any:
    """{form: the documents' kinds, sources, evidence and hashes of tokens and weights, and the summary}."""
    base = write_base(folder / "base", window=64)
    storage = Storage(str(folder / "storage"))
    texts = {f"story {n}": ("heldout" if n == 0 else "train", "markdown", story(n, 12)) for n in range(12)}
    documents = storage.build(
        "documents", stage="golden", params={}, code_version=1, parents={}, make=lambda path: write_documents(path, texts)
    )
    made = {}
    for name in ("plain", "chat"):
        if name == "chat":
            (base / "chat_template.jinja").write_text(TEMPLATE)
        mapping = {
            "run_name": "golden", "storage": str(folder / "storage"), "corpus": {"sources": [{"uri": "x", "name": "x"}]},
            "model": {"base": str(base), "target_length": TARGET}, "retrieval": {"share": 0.25, "questions": 6},
        }  # fmt: skip
        artifact = retrieval_stage.run(PipelineParams.model_validate(mapping), storage, documents, workers_here, lambda _: None)
        rows = pa.concat_tables([pq.read_table(path) for path in sorted(artifact.path.glob("*.parquet"))]).to_pylist()
        made[name] = {"documents": [_described(row) for row in rows], "summary": artifact.manifest.summary}
    return made


def _described(row: dict[str, Any]) -> str:
    bytes_of = np.array(row["input_ids"], "<i4").tobytes() + np.array(row["loss_weights"], "<f4").tobytes()
    return (
        f"{row['doc_id']} {row['family']} from {', '.join(row['made_from'])}: {len(row['input_ids'])} tokens, "
        f"{sum(row['is_answer'])} of answers at {row['answered']} for {row['evidence']}, {hashlib.sha256(bytes_of).hexdigest()[:16]}"
    )
