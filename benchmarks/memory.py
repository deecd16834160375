"""Memory of a training step as `ropeway plan` estimates it, beside what a real step takes.

`python -m benchmarks.memory [--only NAME ...] [--json FILE]`. Each case trains in a process of its own, by the project's own loop,
on a random Llama. Measured is the peak resident memory of the second step, once gradients and optimizer states exist, over that
of the process when it has trained a tiny model, so that all libraries are there: the kernel's own counter, reset after the first
step. glibc is told to give every freed
tensor back (MALLOC_MMAP_THRESHOLD_), so that what is counted are tensors in use, as a GPU's allocator counts them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"]


@dataclass(frozen=True)
class Case:
    """One model, row length and way of training."""

    name: str
    sizes: tuple[int, ...]  # in the order of LAYERS
    tokens: int
    training: dict[str, Any]


SMALL, MEDIUM, LARGE = (512, 1024, 6, 8, 2, 16384), (512, 1408, 10, 8, 4, 16384), (576, 1536, 30, 9, 3, 49152)
WARM_UP = Case("warm-up", (64, 128, 2, 2, 1, 256), 256, {})
QUICK = Case(  # for a test, so nothing is probed
    "10M 1k s2 keep all",
    (256, 704, 8, 4, 2, 16384),
    1024,
    {"gradient_checkpointing": False, "full_attention_layers": "none"},
)
QUICK_HYBRID = Case("10M 1k hybrid keep all", QUICK.sizes, 1024, QUICK.training | {"full_attention_every": 4})  # for a test
KEEP_ALL = {"gradient_checkpointing": False}
CASES = (
    Case("22M 2k s2", SMALL, 2048, {}),
    Case("22M 2k s2 keep all", SMALL, 2048, KEEP_ALL),
    Case("22M 2k hybrid keep all", SMALL, 2048, KEEP_ALL | {"full_attention_every": 3}),
    Case("22M 2k full keep all", SMALL, 2048, KEEP_ALL | {"attention": "full"}),
    Case("22M 2k all-linear keep all", SMALL, 2048, KEEP_ALL | {"lora_targets": ["all-linear"]}),
    Case("22M 2k LoRA alone keep all", SMALL, 2048, KEEP_ALL | {"train_norms": False, "train_embeddings": False}),
    Case("22M 2k bf16 keep all", SMALL, 2048, KEEP_ALL | {"precision": "bf16"}),
    Case("135M 2k s2", LARGE, 2048, {}),
    Case("135M 2k s2 keep all", LARGE, 2048, KEEP_ALL),
    Case("38M 4k full", MEDIUM, 4096, {"attention": "full"}),
    Case("22M 8k s2", SMALL, 8192, {}),
    Case("22M 8k s2 keep all", SMALL, 8192, KEEP_ALL),
)  # fmt: skip


class OneDocumentRows:
    """Rows of one document each, as packed rows are read."""

    def __init__(self, tokens: int, vocabulary: int) -> None:
        self._ids = np.random.default_rng(0).integers(0, vocabulary, tokens).astype(np.int32)

    def __len__(self) -> int:
        return 4

    def row(self, index: int) -> dict[str, np.ndarray]:
        return {"input_ids": self._ids, "seq_lengths": np.array([len(self._ids)], np.int32)}

    def chunk_ids(self, index: int) -> list[str]:
        return [f"document-{index}:0"]


def parameters(case: Case, base: Path) -> Any:
    from data_schemas.params import PipelineParams

    training = {
        "steps": 3, "rows_per_step": 1, "warmup_steps": 0, "precision": "fp32", "validate_every": 1000, "checkpoint_every": 1000,
        "loss_chunk_tokens": 512, "attention_outputs": "recomputed", **case.training,
    }  # fmt: skip
    model = {"base": str(base), "target_length": case.tokens, "rope_method": "yarn"}
    return PipelineParams.model_validate(
        {"run_name": "memory", "corpus": {"sources": ["none"]}, "model": model, "training": training}
    )


def write_base(case: Case, folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = dict(zip(LAYERS, case.sizes, strict=True))
    config = LlamaConfig(**sizes, max_position_embeddings=case.tokens // 4, tie_word_embeddings=True)  # type: ignore[arg-type]
    LlamaForCausalLM(config).save_pretrained(folder)


def resident_bytes(field: str) -> int:
    """VmRSS or VmHWM (its peak) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def train_measured(case: Case, base: Path) -> dict[str, float]:
    """In a process of its own: bytes of the baseline and of the second step's peak, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        write_base(WARM_UP, Path(folder))
        train_two_steps(WARM_UP, Path(folder))
    gc.collect()
    baseline = resident_bytes("VmRSS")
    return train_two_steps(case, base) | {"baseline": baseline}


def train_two_steps(case: Case, base: Path) -> dict[str, float]:
    import torch

    from ray_jobs.finetune.training.distributed import Worker
    from ray_jobs.finetune.training.loop import train

    class Enough(Exception):
        pass

    found: dict[str, float] = {}
    steps: list[float] = []

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        steps.append(metrics["seconds"])
        if len(steps) == 1:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to what is resident now
            return
        found.update(peak=resident_bytes("VmHWM"), seconds=metrics["seconds"])
        raise Enough

    rows = OneDocumentRows(case.tokens, case.sizes[-1])
    with tempfile.TemporaryDirectory() as scratch:
        try:
            train(parameters(case, base), rows, rows, Worker(0, 1, torch.device("cpu")), report, None, Path(scratch))
        except Enough:
            return found
    raise RuntimeError("the loop ended before its second step")


def device_name() -> str:
    """This machine's processor, as records name it."""
    return f"{platform.processor() or platform.machine()} CPU"


def measure(case: Case) -> dict[str, Any]:
    """Foresee one case here, and train it in a subprocess."""
    from ray_jobs.finetune.planning.memory import predict_memory
    from ray_jobs.finetune.planning.shape import training_shape

    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        base = Path(folder) / "base"
        write_base(case, base)
        params = parameters(case, base)
        shape = training_shape(params)
        predicted = predict_memory(shape, params.training, case.tokens)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", "--child", case.name, str(base)],
            env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    measured = found["peak"] - found["baseline"]
    return {
        "case": case.name,
        "tokens": case.tokens,
        "parameters": shape.num_total,
        "trainable": shape.num_trainable,
        "training": case.training,
        "predicted_bytes": round(predicted.total),
        "measured_bytes": measured,
        "ratio": predicted.total / measured,
        "moment": predicted.moment,
        "parts": {name: round(value) for name, value in predicted.parts().items()},
        "seconds_a_step": found["seconds"],
    }


def compare(
    cases: list[Case], tell: Callable[[str], None], keep: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """One row a case; `keep` is handed all rows so far after each, since large cases take minutes."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        row = measure(case)
        tell(
            f"{row['case']:<28} {row['parameters'] / 1e6:>6.0f}M {row['predicted_bytes'] / 1e6:>10,.0f} "
            f"{row['measured_bytes'] / 1e6:>10,.0f} {row['ratio']:>6.2f}x  {row['moment']}"
        )
        rows.append(row)
        keep(rows)
    return rows


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=[case.name for case in (*CASES, QUICK, QUICK_HYBRID)], help="these cases instead of all"
    )
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        case = next(case for case in (*CASES, QUICK, QUICK_HYBRID) if case.name == args.child[0])
        print(json.dumps(train_measured(case, Path(args.child[1]))), flush=True)
        return
    name = device_name()
    print(f"{name}, torch {torch.__version__}; rows of one document, one row a step, loss in chunks of 512 tokens")
    print(f"{'case':<28} {'model':>7} {'plan (MB)':>10} {'peak (MB)':>10} {'ratio':>7}  peak foreseen in")
    chosen = [case for case in (*CASES, QUICK, QUICK_HYBRID) if case.name in args.only] if args.only else list(CASES)

    def keep(rows: list[dict[str, Any]]) -> None:
        if args.json:
            Path(args.json).write_text(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")

    rows = compare(chosen, lambda line: print(line, flush=True), keep)
    furthest = max(rows, key=lambda row: abs(row["ratio"] - 1))
    print(f"furthest off: {furthest['case']}, {furthest['ratio']:.2f}x")


if __name__ == "__main__":
    main()
