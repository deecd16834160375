"""The stage on a tiny real run: arms, artifact, reuse and resume."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import DOCUMENTS
from ray_jobs.evaluate import stage
from ray_jobs.finetune.extended import extended_config
from ray_jobs.finetune.lora import add_trainable_weights
from tasks.evaluate.results import recompute
from tasks.evaluate.sample_set import Samples

LINE = "The {} bridge hangs over valley {}. A traveller pays one coin; she crosses, and looks back!\n"


@dataclass
class TinyRun:
    params: PipelineParams
    storage: Storage
    documents: Artifact
    checkpoint: Artifact
    told: list[str] = field(default_factory=list)

    def evaluate(self, *, tuned: bool = True, **changes: Any) -> Artifact:
        evaluation = self.params.evaluation.model_copy(update=changes)
        params = self.params.model_copy(update={"evaluation": evaluation})
        self.told.clear()
        return stage.run(params, self.storage, self.documents, self.checkpoint if tuned else None, self.told.append)


@pytest.fixture
def tiny_run(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> TinyRun:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    params = PipelineParams.model_validate(
        {
            "run_name": "tiny",
            "storage": str(tmp_path / "storage"),
            "corpus": {"sources": ["nowhere"]},
            "model": {"base": str(tmp_path / "base"), "target_length": 256, "rope_method": "yarn"},
            "training": {"lora_rank": 2},
            "evaluation": {
                "lengths": [64, 128, 256],
                "target_tokens": 16,
                "num_documents": 4,
                "num_depths": 2,
                "num_samples": 2,
                "tasks": ["passkey"],
            },
        }
    )
    storage = Storage(params.storage)

    def build(kind: str, make: Any) -> Artifact:
        return storage.build(kind, stage=kind, params={}, code_version=1, parents={}, make=make)

    return TinyRun(
        params, storage, build("documents", write_documents), build("checkpoints", lambda folder: write_adapter(folder, params))
    )


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


def test_three_arms_on_the_same_documents_and_prompts(tiny_run: TinyRun) -> None:
    evaluation = tiny_run.evaluate()
    samples = Samples.read(evaluation.path)
    perplexity, tasks = samples.perplexity.to_pylist(), samples.task.to_pylist()
    assert {(row["arm"], row["length"]) for row in perplexity} == {
        (arm, length) for arm in ("base", "scaling_only", "fine_tuned") for length in (64, 128, 256)
    }
    assert {row["doc_id"] for row in perplexity} == {"d1", "d2", "d3", "d4"}, "held out and at least 256 tokens"
    nll = {(row["arm"], row["length"], row["doc_id"]): row["nll"] for row in perplexity}
    assert len(set(nll.values())) == len(nll), "every arm and length is a measurement of its own"
    assert all(row["nll"] == pytest.approx(-sum(row["logprobs"]), abs=1e-4) for row in perplexity)

    prompts = {
        arm: [(r["length"], r["depth"], r["prompt_hash"]) for r in tasks if r["arm"] == arm] for arm in stage_arms(tasks)
    }
    assert prompts["base"] == prompts["scaling_only"] == prompts["fine_tuned"], "byte-identical prompts"
    assert {length for length, _, _ in prompts["base"]} == {128, 256}, "64 tokens hold no needle"
    assert not list((tiny_run.storage.root / ".parts").glob("*")), "parts of a finished stage are dropped"
    assert tiny_run.told[-1].startswith("evaluate: 60 of 60 samples")
    assert any("windows of" in line and "at most about" in line for line in tiny_run.told), "an estimate comes first"


def stage_arms(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows))
