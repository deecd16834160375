"""The stage on a tiny real run: arms, artifact, reuse and resume."""

import json
import re
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
from ray_jobs.evaluate import arms, stage
from ray_jobs.finetune.extended import extended_config
from ray_jobs.finetune.lora import add_trainable_weights
from tasks.evaluate.report import build_report

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
                "passkey_depths": 2,
                "passkey_samples": 2,
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
    perplexity = pq.read_table(evaluation.path / "perplexity_samples.parquet").to_pylist()
    assert {(row["arm"], row["length"]) for row in perplexity} == {
        (arm, length) for arm in ("base", "scaling_only", "fine_tuned") for length in (64, 128, 256)
    }
    assert {row["doc_id"] for row in perplexity} == {"d1", "d2", "d3", "d4"}, "held out and at least 256 tokens"
    nll = {(row["arm"], row["length"], row["doc_id"]): row["nll"] for row in perplexity}
    assert len(set(nll.values())) == len(nll), "every arm and length is a measurement of its own"

    passkey = pq.read_table(evaluation.path / "passkey_samples.parquet").to_pylist()
    prompts = {
        arm: [(r["length"], r["depth"], r["gold"]) for r in passkey if r["arm"] == arm] for arm in ("base", "fine_tuned")
    }
    assert prompts["base"] == prompts["fine_tuned"]
    assert {length for length, _, _ in prompts["base"]} == {128, 256}, "64 tokens hold no needle"
    assert any(re.fullmatch(r"evaluate fine_tuned: perplexity at 256: 4/4 documents, .* s", line) for line in tiny_run.told)
    assert not (tiny_run.storage.root / "work" / "evaluate" / evaluation.digest).exists()


def test_the_report_can_be_computed_again_from_the_samples(tiny_run: TinyRun) -> None:
    evaluation = tiny_run.evaluate(arms=("base", "scaling_only"))
    report = stage.load_report(evaluation)
    tables = [pq.read_table(evaluation.path / f"{name}_samples.parquet") for name in ("perplexity", "passkey")]
    assert json.loads(json.dumps(build_report(*tables, report["settings"]))) == report
    assert report["settings"]["base_window"] == 128
    assert str(tiny_run.storage.root.parent) not in json.dumps(report), "reports are published and name no folder"
    for plot in ("perplexity.png", "passkey.png"):
        assert (evaluation.path / plot).read_bytes().startswith(b"\x89PNG")


def test_nothing_is_measured_twice(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny_run.evaluate(arms=("base",))
    monkeypatch.setattr(stage, "measure_arm", None)
    second = tiny_run.evaluate(arms=("base",))
    assert second.reused
    assert second.digest == first.digest


def test_an_interrupted_run_keeps_finished_arms_and_ends_with_the_same_bytes(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def cut_off(model: Any, arm: str, *args: Any, **kwargs: Any) -> Any:
        measured.append(arm)
        if measured == ["base", "scaling_only"]:
            raise KeyboardInterrupt
        return arms.measure_arm(model, arm, *args, **kwargs)

    monkeypatch.setattr(stage, "measure_arm", cut_off)
    with pytest.raises(KeyboardInterrupt):
        tiny_run.evaluate()
    resumed = tiny_run.evaluate()
    assert measured == ["base", "scaling_only", "scaling_only", "fine_tuned"]
    assert "evaluate base: measured by an interrupted run, kept" in tiny_run.told

    undisturbed = TinyRun(
        tiny_run.params, Storage(str(tiny_run.storage.root.parent / "other")), tiny_run.documents, tiny_run.checkpoint
    ).evaluate()
    assert undisturbed.manifest == resumed.manifest, "digest and the hash of every file"


def test_without_a_checkpoint_base_and_scaling_are_measured(tiny_run: TinyRun) -> None:
    evaluation = tiny_run.evaluate(tuned=False, lengths=(256,), passkey_samples=1)
    assert {cell["arm"] for cell in stage.load_report(evaluation)["perplexity"]} == {"base", "scaling_only"}
    with pytest.raises(UserError, match="no checkpoint"):
        tiny_run.evaluate(tuned=False, arms=("fine_tuned",))


def test_a_corpus_too_short_for_the_target_is_named(tiny_run: TinyRun) -> None:
    with pytest.raises(UserError, match=r"Only 0 held-out document\(s\) have at least 100000 tokens"):
        tiny_run.evaluate(lengths=(100_000,))
    leftovers = [*(tiny_run.storage.root / "evaluations").glob("*"), *(tiny_run.storage.root / ".staging").glob("*")]
    assert leftovers == []
