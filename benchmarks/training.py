"""A whole training step, S2-Attn beside full attention, by length: seconds, and peak memory beyond the weights.

`python -m benchmarks.training [--lengths 2048 4096] [--json FILE]`. A step is forward, loss, backward with recomputed layers,
clipping and AdamW, on one document of the length, by the code that trains. The two are timed in turn, so that a machine that slows
down slows both. Memory is measured in a process of its own for each length (CPU: resident; GPU: allocated).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_schemas.params import PipelineParams
from ray_jobs.finetune.training.distributed import Worker
from ray_jobs.finetune.training.loop import set_up
from ray_jobs.finetune.training.steps import train_step


class OneDocument:
    """Packed rows of which there is one, with one document."""

    def __init__(self, length: int, vocabulary: int) -> None:
        self._ids = np.random.default_rng(0).integers(2, vocabulary, length).astype(np.int32)

    def __len__(self) -> int:
        return 1

    def row(self, index: int) -> dict[str, np.ndarray]:
        return {"input_ids": self._ids, "seq_lengths": np.array([len(self._ids)], np.int32)}

    def chunk_ids(self, index: int) -> list[str]:
        return ["random:0"]


def write_base(folder: Path, args: argparse.Namespace) -> None:
    """A Llama of the asked size with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocabulary, hidden_size=args.width, intermediate_size=3 * args.width, num_hidden_layers=args.layers,
        num_attention_heads=args.width // 64, num_key_value_heads=max(1, args.width // 128),
        max_position_embeddings=min(args.lengths) // 2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def stepper(base: Path, length: int, attention: str, vocabulary: int) -> Callable[[], Any]:
    """A training step that can be made again and again."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    params = PipelineParams.model_validate(
        {
            "run_name": "benchmark",
            "corpus": {"sources": ["none"]},
            "model": {"base": str(base), "target_length": length, "rope_method": "yarn"},
            "training": {
                "attention": attention,
                "rows_per_step": 1,
                "precision": "bf16" if device.type == "cuda" else "fp32",
                "loss_chunk_tokens": 512,
            },
        }
    )
    worker, rows = Worker(0, 1, device), OneDocument(length, vocabulary)
    objective, optimizer = set_up(params, worker)
    return lambda: train_step(objective, optimizer, params, rows, [0], 0, worker)


def compare(base: Path, length: int, args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of both and the median of the pairwise ratios."""
    steps = {attention: stepper(base, length, attention, args.vocabulary) for attention in ("full", "s2")}
    pairs = []
    for _ in range(args.repeats + 1):
        seconds = {}
        for attention, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[attention] = time.perf_counter() - started
        pairs.append(seconds)
    pairs = pairs[1:]  # the first warms up
    return {
        "length": length,
        "full_s": statistics.median(pair["full"] for pair in pairs),
        "s2_s": statistics.median(pair["s2"] for pair in pairs),
        "ratio": statistics.median(pair["full"] / pair["s2"] for pair in pairs),
    }


def resident_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def step_memory_mb(base: Path, length: int, vocabulary: int) -> float:
    """Peak megabytes of a step with S2-Attn beyond what stood there before it: the weights and the program."""
    step = stepper(base, length, "s2", vocabulary)
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before_mb = resident_mb("VmRSS")
    step()
    return resident_mb("VmHWM") - before_mb


def memory_in_a_process(base: Path, length: int, vocabulary: int) -> float:
    command = [sys.executable, "-m", "benchmarks.training", "--memory-of", str(base), str(length), str(vocabulary)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        base, length, vocabulary = args.memory_of
        print(step_memory_mb(Path(base), int(length), int(vocabulary)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_base(Path(folder), args)
        for length in sorted(args.lengths):
            memory = memory_in_a_process(Path(folder), length, args.vocabulary)
            row = compare(Path(folder), length, args) | {"s2_step_mb": memory}
            if rows:
                row["memory_growth"] = memory / rows[-1]["s2_step_mb"]
            rows.append(row)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.processor() or platform.machine()} CPU"
    print(f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads; Llama of {args.layers} layers, width {args.width}, "
          f"vocabulary {args.vocabulary}; LoRA, norms and embeddings; group = length / 4; one training step")  # fmt: skip
    print(f"{'length':>8} {'full (s)':>10} {'S2 (s)':>10} {'S2 memory (MB)':>15} {'growth':>8} {'ratio':>7}")
    for row in rows:
        growth = f"{row['memory_growth']:.2f}" if "memory_growth" in row else ""
        print(
            f"{row['length']:>8} {row['full_s']:>10.3f} {row['s2_s']:>10.3f} {row['s2_step_mb']:>15.0f} {growth:>8} {row['ratio']:>6.1f}x"
        )
    if args.json:
        content = {"device": device, "torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}
        Path(args.json).write_text(json.dumps(content | {"model": vars(args) | {"json": None, "memory_of": None}}, indent=1))


if __name__ == "__main__":
    main()
