"""A base of two layers and six packed rows, for tests of the training loop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_schemas.params import PipelineParams
from ray_jobs.finetune.training.distributed import Worker, whole
from ray_jobs.finetune.training.loop import train
from ray_jobs.finetune.training.lora import trainable

CPU = torch.device("cpu")
ALONE = Worker(rank=0, world_size=1, device=CPU)


class Rows(list):
    def row(self, index):
        return self[index]

    def chunk_ids(self, index):
        return self[index]["chunk_ids"]


def packed(*lengths: int, seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {
        "input_ids": generator.integers(2, 384, sum(lengths)).astype(np.int32),
        "seq_lengths": np.array(lengths, np.int32),
        "chunk_ids": [f"d{seed}:{i}" for i in range(len(lengths))],
    }


ROWS = Rows(packed(*lengths, seed=i) for i, lengths in enumerate([(96,), (40, 56), (10, 20, 30), (90, 6), (64,), (33, 63)]))


def write_base(folder: Path, tokenizer: Any, *, tied: bool) -> Path:
    """A tiny Llama with a window of 32, saved as a base model folder."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_params(base: Path, *, two_lists: bool = False, **training: Any) -> PipelineParams:
    """With `two_lists`, longrope with another list for prompts within the window."""
    model: dict[str, Any] = {"base": str(base), "target_length": 96, "rope_method": "yarn"}
    if two_lists:
        factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 3.0, 3.5]}
        (base / "factors-of-two-lists.json").write_text(json.dumps(factors))
        model |= {"rope_method": "longrope", "rope_factors_file": str(base / "factors-of-two-lists.json")}
    settings = {"steps": 4, "rows_per_step": 4, "learning_rate": 1e-2, "warmup_steps": 1, "precision": "fp32",
                "validate_every": 2, "validation_rows": 2, "checkpoint_every": 2} | training  # fmt: skip
    return PipelineParams.model_validate(
        {"run_name": "t", "corpus": {"sources": ["x"]}, "model": model, "training": settings}
    )  # fmt: skip


def run(params, folder, worker=ALONE, resume_from=None, rows=ROWS, **options):
    """Train; returns the trained weights by name, what was reported, and the checkpoint folders by step."""
    reports, kept = [], {}

    def report(metrics, directory):
        reports.append(metrics)
        if directory:
            kept[metrics["step"]] = directory.rename(folder / f"{len(kept)}-{metrics['step']}-{resume_from is not None}")

    model = train(params, rows, ROWS, worker, report, resume_from, folder, **options)
    return {name: whole(p.detach()).clone() for name, p in trainable(model)}, reports, kept
