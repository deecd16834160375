"""An evaluation of fixed models on fixed documents: every sample, and the report. And a report on made-up samples, more of them."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from transformers import LlamaForCausalLM

from data_schemas.evaluation_params import TASK_NAMES
from data_schemas.params import PipelineParams
from data_schemas.report import Report, record_json
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate import evaluation_stage
from ray_jobs.evaluate.workload import prepare_workload
from ray_jobs.finetune.training.lora import add_trainable_weights
from tasks.evaluate.report.build import build_report
from tasks.evaluate.sample_set import Samples
from tasks.model.extended import extended_config
from tests.golden.inputs import byte_tokenizer, fill, prose, write_base, write_documents
from tests.ray_jobs.evaluate.evaluation_example import write_chunks, write_questions
from tests.tasks.evaluation_rows import ARMS, changed_settings, perplexity_table, position_table, reorder_table, task_table

DOCUMENTS = {f"d{number}": ("heldout", "plain", prose(number, 60)) for number in range(4)}


def output(folder: Path) -> Any:
    params = PipelineParams.model_validate(
        {
            "run_name": "golden",
            "storage": str(folder / "storage"),
            "corpus": {"sources": ["nowhere"]},
            "model": {"base": str(write_base(folder / "base", window=128)), "target_length": 256, "rope_method": "yarn"},
            "training": {"lora_rank": 2},
            "evaluation": {
                "lengths": [64, 128, 256], "target_tokens": 32, "num_documents": 3, "num_depths": 2, "num_samples": 2,
                "tasks": ["passkey"], "batch_tokens": 512, "reorder_samples": 4,
                "qa_file": write_questions(folder), "published": ["yarn", "longlora"],
            },
        }
    )  # fmt: skip
    storage = Storage(params.storage)

    def build(kind: str, make: Any, **parents: str) -> Artifact:
        return storage.build(kind, stage="golden", params={"kind": kind}, code_version=1, parents=parents, make=make)

    shards = build("shards", lambda path: write_chunks(path, trained_on="elsewhere"))
    checkpoint = build("checkpoints", lambda path: write_adapter(path, params), shards=shards.digest)
    documents = build("documents", lambda path: write_documents(path, DOCUMENTS))
    evaluation = evaluation_stage.run(params, storage, documents, checkpoint, lambda _: None)
    return {
        "samples": {path.stem: pq.read_table(path).to_pydict() for path in sorted(evaluation.path.glob("*_samples.parquet"))},
        "report": without_machine(json.loads((evaluation.path / "report.json").read_text())),
        "settings": without_machine(json.loads((evaluation.path / "settings.json").read_text())),
        "prompts of every task": prompts(params, documents),
        "report on made-up samples": json.loads(record_json(made_up_report())),
        "report.md": without_machine((evaluation.path / "report.md").read_text().splitlines()),
        "files": [entry.path for entry in evaluation.manifest.files],
    }


def without_machine(found: Any) -> Any:
    """Without date and versions, which are other ones on another day and machine."""
    if isinstance(found, list):
        return [line for line in found if not line.startswith(("- date: ", "- versions: "))]
    settings = found.get("settings", found)
    for name in ("date", "versions"):
        del settings["measured_with"][name]
    return found


def prompts(params: PipelineParams, documents: Artifact) -> dict[str, Any]:
    """Hashes of prompts that are too long to be scored in a test, and one text of each task."""
    evaluation = {"tasks": TASK_NAMES, "task_lengths": [1024], "num_samples": 1, "num_depths": 1}
    asked = params.model_copy(update={"evaluation": params.evaluation.model_copy(update=evaluation)})
    tokenizer = byte_tokenizer()
    workload = prepare_workload(asked, 128, documents.path, tokenizer)
    made = {}
    for (task, length), of_task in workload.prompts.items():
        text = tokenizer.decode(of_task[0].tokens)
        made[f"{task}, {length} tokens"] = {
            "hashes": [prompt.prompt_hash for prompt in of_task],
            "golds": [list(prompt.golds) for prompt in of_task],
            "ends": [text[:100], text[-200:]],
        }
    return made


def made_up_report() -> Report:
    """On enough documents and samples for every estimate and test."""

    def nats(arm: str, length: int, document: int) -> float:
        return (
            3
            + 0.3 * math.sin(document)
            + (0.002 * length * (arm == "base") - 0.1 * (arm == "fine_tuned")) * math.cos(document) ** 2
        )

    def is_recalled(arm: str, task: str, length: int, depth: float | None, sample: int) -> float:
        return float(math.sin(sample * 7 + (depth or 0)) > {"base": 0.5, "scaling_only": 0.2, "fine_tuned": -0.4}[arm])

    lengths = (128, 256)
    samples = Samples.of(
        perplexity=perplexity_table(nats, ARMS, lengths, 12),
        position=position_table(lambda arm, start: 3 + 1 / start, ARMS, 256, 3),
        task=task_table(is_recalled, lengths=lengths, num_samples=25),
        reorder=reorder_table({"none": 0.5, "random": 0.4, "important_first_last": 0.7}, (256,), num_samples=30),
    )
    return build_report(samples, changed_settings(base_window=128, target_length=256, lengths=lengths))


def write_adapter(folder: Path, params: PipelineParams) -> dict[str, Any]:
    model = LlamaForCausalLM.from_pretrained(params.model.base, config=extended_config(params.model))
    trained = add_trainable_weights(model, params.training)
    fill(trained, seed=2, scale=0.1, trained_only=True)
    trained.save_pretrained(folder / "adapter")
    return {}
