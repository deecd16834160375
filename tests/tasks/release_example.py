"""A tiny finished run to publish: a random Llama as base, a real peft adapter, and a report from made-up samples."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.report import record_json
from data_schemas.storage import Artifact, Storage
from ray_jobs.finetune.training.lora import add_trainable_weights
from tasks.evaluate.report.result_files import write_results
from tasks.evaluate.sample_set import Samples
from tasks.model.base_model import load_base
from tasks.model.extended import checkpoint_plan, extended_config
from tasks.publish import release_stage as stage
from tests.tasks.evaluation_rows import ARMS, changed_settings, perplexity_table, position_table, reorder_table, task_table

WINDOW, TARGET = 64, 256
CORPUS = "/home/somebody/private/books"  # never read; only its name may be published


@dataclass(frozen=True)
class FinishedRun:
    """The arguments of `tasks.publish.release_stage.run`."""

    params: PipelineParams
    storage: Storage
    documents: Artifact
    shards: Artifact
    checkpoint: Artifact
    evaluation: Artifact

    def publish(
        self,
        progress: ProgressCallback = lambda _: None,
        params: PipelineParams | None = None,
        advice: Artifact | None = None,
        searches: Mapping[str, Artifact] | None = None,
    ) -> Artifact:
        done = self.documents, self.shards, self.checkpoint, self.evaluation
        return stage.run(params or self.params, self.storage, *done, progress, advice=advice, searches=searches)


def finished_run(
    root: Path,
    tokenizer: PreTrainedTokenizerFast,
    method: str = "yarn",
    orders: Mapping[str, float] | None = None,
    fine_tuned: Callable[[int], float] = lambda length: 3.3 - length / 2048,
    config: PreTrainedConfig | None = None,
    **publish: Any,
) -> FinishedRun:
    """Artifacts of all stages below `root`/storage, and the base in `root`/tiny-base.

    `orders`: the share of questions that is answered under each order of passages, where that is to have been measured.
    `fine_tuned`: nats a token at a length; the base has 3.25 at its window. `config` is another base's than a Llama's.
    """
    _write_base(root / "tiny-base", tokenizer, config or _llama())
    factors, switches = None, method == "longrope_switching"
    if method.startswith("longrope"):
        factors = str(root / "factors.json")
        short = [1.0] * 4 if switches else [1.0, 2.0, 3.0, 4.0]
        Path(factors).write_text(json.dumps({"short_factor": short, "long_factor": [1.0, 2.0, 3.0, 4.0]}))
    params = PipelineParams.model_validate(
        {
            "run_name": "tiny",
            "storage": str(root / "storage"),
            "corpus": {"sources": [{"uri": CORPUS, "licence": "CC0-1.0"}]},
            "model": {
                "base": str(root / "tiny-base"),
                "target_length": TARGET,
                "rope_method": "longrope" if switches else method,
                "rope_factors_file": factors,
            },
            "training": {
                "lora_rank": 4,
                "steps": 3,
                "precision": "bf16",
                "short_window_share": 0.25 if switches else 0.0,
            },
            "publish": publish,
        }
    )
    storage = Storage(params.storage)

    def build(kind: str, make: Callable[[Path], dict[str, Any]], **parents: str) -> Artifact:
        described = {"made_for": "tests", "uri": CORPUS, "method": method}
        return storage.build(kind, stage=kind, params=described, code_version=1, parents=parents, make=make)

    documents = build("documents", _write_documents)
    shards = build("shards", lambda folder: {"num_rows": 4, "num_tokens": 1000}, documents=documents.digest)
    checkpoint = build("checkpoints", lambda folder: _write_checkpoint(folder, params, tokenizer), shards=shards.digest)
    evaluation = build(
        "evaluations",
        lambda folder: _write_evaluation(folder, orders or {}, fine_tuned, switches),
        checkpoint=checkpoint.digest,
    )
    return FinishedRun(params, storage, documents, shards, checkpoint, evaluation)


def _llama() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=WINDOW, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip


def _write_base(folder: Path, tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "LICENSE").write_text("Do as you like.\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")


def _write_documents(folder: Path) -> dict[str, Any]:
    return {"num_documents": 5, "num_train": 3, "num_heldout": 2, "num_bytes": 2_000_000}


def _write_checkpoint(folder: Path, params: PipelineParams, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """An adapter whose every trained weight has moved, saved as training saves it."""
    generator = torch.Generator().manual_seed(1)
    model = load_base(params.model, config=extended_config(params.model))
    trained = add_trainable_weights(model, params.training)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    trained.save_pretrained(folder / "adapter")
    (folder / "rope_plan.json").write_text(checkpoint_plan(params.model).to_json())
    rows = [{"step": step, "loss": 5.0 - step, "learning_rate": 1e-3} for step in (1, 2, 3)]
    (folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer.save_pretrained(folder / "tokenizer")
    return {}


def _write_evaluation(
    folder: Path, orders: Mapping[str, float], fine_tuned: Callable[[int], float], switches: bool
) -> dict[str, Any]:
    for name, content in _evaluation_files(tuple(orders.items()), fine_tuned, switches).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return {}


@cache  # drawing the figures takes seconds
def _evaluation_files(
    orders: tuple[tuple[str, float], ...], fine_tuned: Callable[[int], float], switches: bool
) -> dict[str, bytes]:
    """The base gets worse beyond its window, the fine-tuned model better; recall is best at the ends. `switches`: short prompts were also
    measured as vLLM serves them, and are worse."""
    nll_of_arm = {"base": lambda n: 3 + n / WINDOW / 4, "scaling_only": lambda n: 3.4, "fine_tuned": fine_tuned}
    lengths = (WINDOW, TARGET)

    def is_recalled(arm: str, task: str, length: int, depth: float | None, sample: int) -> float:
        return float(arm == "fine_tuned" and depth != 0.5)

    perplexity = perplexity_table(lambda arm, length, d: nll_of_arm[arm](length) + d / 100, ARMS, lengths, 6, num_tokens=8)
    if switches:
        served = perplexity_table(lambda arm, length, d: 3.5 + d / 100, ("fine_tuned_as_served",), (WINDOW,), 6, num_tokens=8)
        perplexity = pa.concat_tables([perplexity, served])
    samples = Samples.of(
        perplexity=perplexity,
        position=position_table(lambda arm, start: 3 + 1 / start, ARMS, TARGET, 6),
        task=task_table(is_recalled, lengths=lengths, num_samples=20),
        reorder=reorder_table(dict(orders), lengths, num_samples=40),
    )
    settings = changed_settings(
        base_window=WINDOW,
        target_length=TARGET,
        target_tokens=8,
        qa_file="/home/somebody/private/questions.jsonl",
    )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        samples.write(folder)
        (folder / "settings.json").write_text(record_json(settings))
        write_results(folder, samples, settings)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
