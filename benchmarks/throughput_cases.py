"""Cases of the throughput measurement: which base, at which length, with which features, and one measured case.

Each case runs the very functions that training runs (`ray_jobs.finetune.training.loop.set_up` and `train_step`), on rows of one document.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_schemas.params import PipelineParams
from data_schemas.params_reading import validate_params

WINDOW = 4096  # of the random bases, for any length above it; throughput does not depend on it
TINY = "tiny"  # for trying the script: window 64
# hidden, intermediate, layers, heads, key-value heads, vocabulary, tied embeddings
SHAPES: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    TINY: (64, 128, 2, 4, 2, 512, True),
    "smollm2-135m": (576, 1536, 30, 9, 3, 49152, True),
    "llama-1b": (2048, 8192, 16, 32, 8, 128256, True),
    "llama-8b": (4096, 14336, 32, 32, 8, 128256, False),
}
# What differs from the default: S2-Attn, LoRA with norms and embeddings, checkpointed layers, loss in chunks.
VARIANTS: dict[str, dict[str, Any]] = {
    "s2": {},
    "full": {"attention": "full"},
    "full-tuning": {"attention": "full"},  # and every weight trains, in the base's own type
    "s2-no-checkpointing": {"gradient_checkpointing": False},
    "s2-offload": {"activation_offload": True},
    "s2-attention-kept": {"attention_outputs": "kept"},
    "s2-attention-recomputed": {"attention_outputs": "recomputed"},
    "s2-liger-norms": {"norm_kernel": "liger"},
    "s2-fp8": {"base_precision": "fp8"},
    "s2-all-logits": {"loss_kernel": "chunked", "loss_chunk_tokens": 1 << 24},
    "s2-frozen-embeddings": {"train_embeddings": False},
    "s2-adamw-8bit": {"optimizer": "adamw_8bit"},
    "s2-bf16-hidden": {"hidden_states": "bf16"},
    "s2-compiled": {"compile_layers": True},
    "s2-compiled-bf16-hidden": {"compile_layers": True, "hidden_states": "bf16"},
    "s2-flash-attn-3": {"s2_executor": "flash_attn_3"},
    "s2-sdpa": {"s2_executor": "sdpa"},
    "full-sdpa": {"attention": "full", "s2_executor": "sdpa"},
}


class SingleDocuments:
    """Rows of one document of random tokens each, as the loop reads them."""

    def __init__(self, num_rows: int, length: int, vocab: int) -> None:
        self._ids = np.random.default_rng(0).integers(2, vocab, (num_rows, length), dtype=np.int32)

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, index: int) -> dict[str, np.ndarray]:
        return {"input_ids": self._ids[index], "seq_lengths": np.array([self._ids.shape[1]], np.int32)}

    def chunk_ids(self, index: int) -> list[str]:
        return [f"random-{index}:0"]


@dataclass(frozen=True)
class Case:
    model: str
    length: int
    variant: str

    @property
    def name(self) -> str:
        return f"{self.model}/{self.length}/{self.variant}"


def random_base(model: str, bases: Path, device: torch.device) -> Path:
    """Folder of a randomly initialised Llama of that shape, written once; bfloat16 on a GPU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = bases / model
    if (folder / "config.json").is_file():
        return folder
    hidden, intermediate, layers, heads, kv_heads, vocab, tied = SHAPES[model]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocab, tie_word_embeddings=tied, dtype=dtype,
        max_position_embeddings=64 if model == TINY else WINDOW,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        base = LlamaForCausalLM(config).to(dtype)
    base.save_pretrained(folder.with_suffix(".part"))
    folder.with_suffix(".part").rename(folder)
    del base
    release(device)
    return folder


def case_params(case: Case, base: Path, steps: int, device: torch.device) -> PipelineParams:
    """UserError for a variant that this device does not train."""
    precision = "bf16" if device.type == "cuda" else "fp32"
    training = {"steps": steps, "rows_per_step": 1, "warmup_steps": 0, "precision": precision, **VARIANTS[case.variant]}
    return validate_params(
        {
            "run_name": "throughput",
            "corpus": {"sources": ["random"]},
            "model": {"base": str(base), "target_length": case.length, "rope_method": "auto"},
            "training": training,
            "ray": {"use_gpu": device.type == "cuda"},
        },
        case.name,
    )


def measure_case(case: Case, bases: Path, steps: int, device: torch.device) -> dict[str, Any]:
    """Tokens a second, MFU and peak memory of `steps` steps after one to warm up; UserError as training raises it."""
    from ray_jobs.finetune.executors import describe_executor
    from ray_jobs.finetune.planning.flops import cost_of, peak_flops
    from ray_jobs.finetune.training.distributed import Worker
    from ray_jobs.finetune.training.loop import set_up
    from ray_jobs.finetune.training.objective import group_size_at
    from ray_jobs.finetune.training.optimization import build_optimizer
    from ray_jobs.finetune.training.steps import train_step

    params = case_params(case, random_base(case.model, bases, device), steps + 1, device)
    worker = Worker(rank=0, world_size=1, device=device)
    objective, optimizer = set_up(params, worker)
    if case.variant == "full-tuning":
        for name, weight in objective.model.named_parameters():
            weight.requires_grad_("original_module" not in name)
        optimizer = build_optimizer(objective.model, params.training)
    config = objective.model.get_base_model().config
    cost = cost_of(objective.model, config)
    weights_bytes = sum(p.numel() * p.element_size() for p in objective.parameters())
    rows = SingleDocuments(steps + 1, case.length, config.vocab_size)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for step in range(steps + 1):
        synchronize(device)
        started = time.perf_counter()
        metrics = train_step(objective, optimizer, params, rows, [step], step, worker)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    median = sorted(seconds[1:])[steps // 2]
    flops = cost.step_flops(np.array([case.length]), group_size_at(0, params))
    peak = peak_flops(device, None, params.training.precision)
    return {
        "tokens_per_s": case.length / median,
        "step_s": median,
        "steps_s": seconds[1:],
        "mfu": flops / median / peak if peak else None,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "weights_bytes": weights_bytes,
        "loss": metrics["loss"],
        "executor": describe_executor(config, params.training, device),
    }


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
