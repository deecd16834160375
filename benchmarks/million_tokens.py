"""Training steps on one row of 1,048,576 tokens, cut over two workers, with the memory that `ropeway plan` foresees.

`python -m benchmarks.million_tokens [--tokens N] [--steps N] [--workers N] [--json FILE]`. A random Llama of 125,000 weights trains by
the project's own loop: LoRA, norms and embeddings, S2-Attn in groups of 512 in all layers, MLPs in tiles, recomputed layers, the loss in
chunks. The row is one document, the dearest to cut. Its tokens repeat with a period, so that there is something to learn. Workers are
processes on this machine that meet by gloo.

foreseen   by the formula of `ropeway plan`, for the largest part of the row
measured   peak resident memory of the worker that needs most, from the second step on, over that after a tiny training

Where training is on a CPU, `training.activation_offload` moves nothing: the inputs of all layers stay, and both figures count them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import WARM_UP, device_name, resident_bytes, train_two_steps, write_base

TOKENS, STEPS, WORKERS, GROUP_SIZE, TILE = 1_048_576, 3, 2, 512, 8192
VOCABULARY, PERIOD, HELD_OUT_TOKENS = 512, 300, 1024
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


class LongRow:
    """Rows of one document each, whose tokens repeat after `PERIOD` of them."""

    def __init__(self, tokens: int) -> None:
        of_period = np.random.default_rng(0).integers(0, VOCABULARY, PERIOD).astype(np.int32)
        self._ids = np.resize(of_period, tokens)

    def __len__(self) -> int:
        return 2

    def row(self, index: int) -> dict[str, np.ndarray]:
        return {"input_ids": self._ids, "seq_lengths": np.array([len(self._ids)], np.int32)}

    def chunk_ids(self, index: int) -> list[str]:
        return [f"document-{index}:0"]


def parameters(base: Path, tokens: int, steps: int, workers: int) -> Any:
    """Those of the run; held-out rows are short, because validation attends in full."""
    from data_schemas.params import PipelineParams

    training = {
        "steps": steps, "rows_per_step": 1, "warmup_steps": 0, "learning_rate": 0.03, "precision": "fp32", "validation_rows": 1,
        "validate_every": steps, "checkpoint_every": steps, "loss_chunk_tokens": 1024, "s2_group_size": GROUP_SIZE,
        "full_attention_layers": "none", "gradient_checkpointing": True, "activation_offload": True, "mlp_tile_tokens": TILE,
    }  # fmt: skip
    model = {"base": str(base), "target_length": tokens, "rope_method": "yarn"}
    ray = {"num_workers": workers, "sequence_workers": workers}
    return PipelineParams.model_validate(
        {"run_name": "million", "corpus": {"sources": ["none"]}, "model": model, "training": training, "ray": ray}
    )


def make_base(folder: Path, tokens: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, max_position_embeddings=tokens // 8, tie_word_embeddings=True)  # type: ignore[arg-type]
    LlamaForCausalLM(config).save_pretrained(folder)


def worker(rank: int, tokens: int, steps: int, workers: int, folder: Path) -> None:
    """One worker of the run, which writes what it measured."""
    import torch
    import torch.distributed as dist

    from ray_jobs.finetune.training.distributed import Worker
    from ray_jobs.finetune.training.loop import train
    from ray_jobs.finetune.training.row_parts import sequence_link

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as warm:
        write_base(WARM_UP, Path(warm))
        train_two_steps(WARM_UP, Path(warm))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers)
    gc.collect()
    baseline = resident_bytes("VmRSS")
    done: list[dict[str, float]] = []

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        peak = resident_bytes("VmHWM") - baseline
        done.append({name: metrics[name] for name in ("loss", "grad_norm", "seconds")} | {"memory_bytes": peak})
        Path("/proc/self/clear_refs").write_text("5")
        if rank == 0:
            print(f"step {len(done)}: {done[-1]}", file=sys.stderr, flush=True)

    of_row = Worker(rank, workers, torch.device("cpu"), sequence_link(rank, workers, workers))
    params = parameters(folder / "base", tokens, steps, workers)
    Path("/proc/self/clear_refs").write_text("5")
    train(params, LongRow(tokens), LongRow(HELD_OUT_TOKENS), of_row, report, None, folder)
    (folder / f"done-{rank}.json").write_text(json.dumps(done))
    dist.destroy_process_group()


def foreseen(params: Any) -> dict[str, float]:
    """Tokens of the largest part and the bytes on its worker, by the plan's formula."""
    from ray_jobs.finetune.planning.memory import in_one_memory, predict_memory
    from ray_jobs.finetune.planning.sequence import exchanged_bytes, first_pattern, largest_part, sent_bytes
    from ray_jobs.finetune.planning.shape import training_shape

    shape, workers = training_shape(params), params.ray.sequence_workers
    cut = (shape, params.row_tokens, first_pattern(params, shape), workers)
    part, beside = largest_part(*cut), exchanged_bytes(*cut)
    found = predict_memory(shape, in_one_memory(params.training), part, num_workers=workers, exchanged_bytes=beside)
    sent = sent_bytes(params, shape, 0, GROUP_SIZE).layer_in_groups if workers > 1 else 0.0
    parts = {name: round(size) for name, size in found.parts().items() if size}
    return {
        "parameters": shape.num_total,
        "part_tokens": part,
        "bytes": round(found.total),
        "sent_bytes_a_layer": round(sent),
    } | {f"{name}_bytes": size for name, size in parts.items()}


def wait_for(running: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all workers. RuntimeError if one fails, after the others are ended."""
    while any(process.poll() is None for process in running) and not any(process.poll() for process in running):
        time.sleep(0.2)
    if any(process.poll() for process in running):
        for process in running:
            process.kill()
        raise RuntimeError("a worker failed")


def measure(tokens: int, steps: int, workers: int) -> dict[str, Any]:
    """Foresee here, and train in processes of their own."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_base(folder / "base", tokens)
        plan = foreseen(parameters(folder / "base", tokens, steps, workers))
        command = [sys.executable, "-m", "benchmarks.million_tokens", "--worker"]
        sizes = [str(n) for n in (tokens, steps, workers)]
        running = [subprocess.Popen([*command, str(rank), *sizes, name], env=environment) for rank in range(workers)]
        wait_for(running)
        of_workers = [json.loads((folder / f"done-{rank}.json").read_text()) for rank in range(workers)]
    measured = max(step["memory_bytes"] for of_worker in of_workers for step in of_worker[1:])
    return {
        "tokens": tokens,
        "workers": workers,
        "group_size": GROUP_SIZE,
        "foreseen": plan,
        "measured_bytes": measured,
        "ratio": plan["bytes"] / measured,
        "steps": of_workers[0],
    }


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.million_tokens", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps < 2:
        parser.error(f"--steps {args.steps} has no step after the first, from which memory is measured: give 2 or more")
    if args.worker:
        *sizes, folder = args.worker
        rank, tokens, steps, workers = map(int, sizes)
        worker(rank, tokens, steps, workers, Path(folder))
        return
    found = measure(args.tokens, args.steps, args.workers)
    plan = found["foreseen"]
    print(f"{found['tokens']:,} tokens over {found['workers']} workers, {plan['parameters']:,} weights")
    print(f"memory of a worker: foreseen {plan['bytes'] / 1e6:,.0f} MB, measured {found['measured_bytes'] / 1e6:,.0f} MB")
    for number, step in enumerate(found["steps"], 1):
        print(
            f"step {number}: loss {step['loss']:.4f}, {step['seconds']:,.0f} s, {found['tokens'] / step['seconds']:,.0f} tokens/s"
        )
    if args.json:
        args.json.write_text(json.dumps({"device": device_name(), "torch": torch.__version__} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
