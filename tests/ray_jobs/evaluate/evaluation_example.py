"""A tiny real run to evaluate: a random Llama, six documents, an adapter whose trained weights have all moved."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import CHUNKS, DOCUMENTS
from ray_jobs.evaluate import evaluation_stage as stage
from ray_jobs.finetune.training.lora import add_trainable_weights
from tasks.model.extended import extended_config
from tests.heard import texts_into

LINE = "The {} bridge hangs over valley {}. A traveller pays one coin; she crosses, and looks back!\n"


@dataclass
class TinyRun:
    params: PipelineParams
    storage: Storage
    documents: Artifact
    checkpoint: Artifact
    told: list[str] = field(default_factory=list)

    def evaluate(self, *, tuned: bool = True, ray: dict[str, Any] | None = None, **changes: Any) -> Artifact:
        params = self.changed(ray, **changes)
        self.told.clear()
        return stage.run(params, self.storage, self.documents, self.checkpoint if tuned else None, texts_into(self.told))

    def changed(self, ray: dict[str, Any] | None = None, **changes: Any) -> PipelineParams:
        evaluation = self.params.evaluation.model_copy(update=changes)
        update = {"evaluation": evaluation, "ray": self.params.ray.model_copy(update=ray or {})}
        return self.params.model_copy(update=update)

    def elsewhere(self, root: Path) -> TinyRun:
        """The same inputs, and a storage root that has no evaluation yet."""
        return TinyRun(self.params, Storage(str(root)), self.documents, self.checkpoint)

    @property
    def parts(self) -> Path:
        return self.storage.root / ".parts"


def make_tiny_run(folder: Path, tokenizer: Any) -> TinyRun:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    params = PipelineParams.model_validate(
        {
            "run_name": "tiny",
            "storage": str(folder / "storage"),
            "corpus": {"sources": ["nowhere"]},
            "model": {"base": str(folder / "base"), "target_length": 256, "rope_method": "yarn"},
            "training": {"lora_rank": 2},
            "evaluation": {
                "lengths": [64, 128, 256],
                "target_tokens": 16,
                "num_documents": 4,
                "num_depths": 2,
                "num_samples": 2,
                "tasks": ["passkey"],
                "batch_tokens": 64,
            },
        }
    )
    storage = Storage(params.storage)

    def build(kind: str, make: Any, **parents: str) -> Artifact:
        return storage.build(kind, stage=kind, params={}, code_version=1, parents=parents, make=make)

    shards = build("shards", write_chunks)
    checkpoint = build("checkpoints", lambda directory: write_adapter(directory, params), shards=shards.digest)
    return TinyRun(params, storage, build("documents", write_documents), checkpoint)


def write_chunks(folder: Path, trained_on: str = "d5") -> dict[str, Any]:
    """Two chunks, of a training document and of a held-out one, as prepare leaves them."""
    rows = []
    for doc_id, split in ((trained_on, "train"), ("d1", "heldout")):
        row = {"chunk_id": f"{doc_id}:0", "doc_id": doc_id, "index": 0, "source": "x", "previous_chunk_id": None}
        row |= {"next_chunk_id": None, "char_start": 0, "char_end": 9, "num_tokens": 4, "heading_path": [], "split": split}
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=CHUNKS), folder / "chunks-00000-of-00001.parquet")
    return {}


def write_documents(folder: Path) -> dict[str, Any]:
    rows = []
    for number in range(6):
        text = "".join(LINE.format(number, line) for line in range(40 if number else 2))
        split = "train" if number == 5 else "heldout"
        row = {"doc_id": f"d{number}", "text": text, "source_uri": "x", "record": 0, "num_bytes": len(text)}
        row |= {"source": "x", "byte_start": None, "byte_end": None, "format": "plain", "language": None}
        rows.append(row | {"content_hash": "x", "licence": "CC0-1.0", "work": f"w{number}", "split": split})
    pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS), folder / "documents-00000-of-00001.parquet")
    return {}


def write_questions(folder: Path) -> str:
    """A file of questions short enough for 256 tokens; the last one may be answered in two ways, and so is generated."""
    records: list[dict[str, Any]] = []
    for number in range(70, 76):
        others = [f"{name} paid {number + i}." for i, name in enumerate(("Bo", "Cy", "Di", "Ed", "Flo"), start=1)]
        answers = ["Ann", "Ann paid"] if number == 75 else ["Ann"]
        gold = f"Ann paid {number}."
        records.append({"question": f"Who paid {number}?", "answers": answers, "gold": gold, "passages": others})
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


def write_adapter(folder: Path, params: PipelineParams) -> dict[str, Any]:
    """An adapter whose trained weights have all moved a little."""
    model = LlamaForCausalLM.from_pretrained(params.model.base, config=extended_config(params.model), dtype=torch.float32)
    trained = add_trainable_weights(model, params.training)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    trained.save_pretrained(folder / "adapter")
    return {}
