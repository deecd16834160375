"""One row over two workers: bytes sent, memory and speed, beside gathering and passing round all keys and values.

`python -m benchmarks.sequence_parallel [--lengths N ...] [--workers N ...] [--group-size N] [--json FILE]`. A random model of the demo's
size computes the loss and all gradients of one row, a single document, which is the dearest row to cut. `ropeway` sends halos; `gather`
sends every worker's keys and values to all others; `ring` passes them from neighbour to neighbour. All attend in the same groups, and
the losses and gradients of all are compared: each gradient by its norm and by its product with random numbers that are the same for all.
Workers are processes on this machine that meet by gloo.

bytes      sent in the forward pass, a layer, by the worker that sends most
memory     peak resident memory of the worker that needs most, over that after the model is loaded
tokens/s   of the whole row, forward and backward
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.memory import resident_bytes

LENGTHS, WORKERS, GROUP_SIZE = (16_384, 32_768, 65_536, 131_072), (1, 2), 2048
METHODS = ("ropeway", "gather", "ring")
TOLERANCE = 1e-4  # of gradients in float32, relative to the largest
CHUNK_TOKENS = 1024


def build() -> Any:
    """A Llama of the demo base's size, in groups in all layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from ray_jobs.finetune.attention import register_s2_attention

    register_s2_attention()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=1_048_576, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("s2")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def counting(rank: int, num_workers: int) -> Any:
    """A link that counts the bytes that it sends, in `counted`."""
    from ray_jobs.finetune.sequence_parallel.exchange import Link

    class Counting(Link):
        counted = 0

        def send(self, buffer: torch.Tensor, to: int) -> Any:
            type(self).counted += buffer.numel() * buffer.element_size()
            return super().send(buffer, to)

    return Counting(rank, tuple(range(num_workers)), dist.group.WORLD)


class Collect(torch.autograd.Function):
    """Keys and values [2, t, K, D] of every worker: [2, T, K, D]; gathered, or passed round C - 1 times. Gradients go back."""

    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, lengths: list[int], link: Any, method: str) -> torch.Tensor:
        ctx.of = lengths, link
        parts = [mine.new_empty((2, n, *mine.shape[2:])) for n in lengths]
        parts[link.index] = mine.contiguous()
        after, before = (link.index + 1) % link.num_workers, (link.index - 1) % link.num_workers
        if method == "ring":
            held = link.index
            for _ in range(link.num_workers - 1):
                coming = (held - 1) % link.num_workers
                works = [link.send(parts[held], after), link.receive(parts[coming], before)]
                for work in works:
                    work.wait()
                held = coming
        else:
            others = [other for other in range(link.num_workers) if other != link.index]
            works = [link.receive(parts[other], other) for other in others] + [link.send(mine.contiguous(), o) for o in others]
            for work in works:
                work.wait()
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        lengths, link = ctx.of
        whole = grads[0].contiguous()
        dist.all_reduce(whole, group=link.group)
        return whole.split(lengths, dim=1)[link.index].contiguous(), None, None, None


def attention_of(method: str) -> Any:
    """`attend_part` for a method that sends all keys and values."""
    from ray_jobs.finetune.sequence_parallel.attention import attend_after_halo, attend_inside
    from ray_jobs.finetune.sequence_parallel.halo import halo_start

    def attend(
        query: Any, key: Any, value: Any, part: Any, groups: Any, execute: Any, scale: float, *others: Any
    ) -> torch.Tensor:
        whole = Collect.apply(torch.stack([key, value]), part.lengths, part.link, method)
        outputs = []
        for heads in groups:
            local = part.local(heads.segments)
            inner = attend_inside(query, key, value, heads, local, execute, scale, 0.0, None, None)
            count = local.num_joined
            first = halo_start(heads.segments, part.start)
            keys, values = whole[:, first : part.start + count, heads.key_value]
            edge = [attend_after_halo(query[:count, heads.query], keys, values, scale, 0.0, None, None)] if count else []
            outputs.append(torch.cat([*edge, *([] if inner is None else [inner])]))
        return torch.cat(outputs, dim=1) + 0.0 * whole.sum()  # so that every worker takes part in the backward pass

    return attend


def worker(method: str, rank: int, num_workers: int, length: int, group_size: int, folder: str) -> None:
    """One worker of a cell; rank 0 writes the result."""
    from types import SimpleNamespace

    from ray_jobs.finetune.sequence_parallel.cuts import RowCost
    from ray_jobs.finetune.training.batches import MicroBatch
    from ray_jobs.finetune.training.objective import set_group_size, summed_loss
    from ray_jobs.finetune.training.row_parts import part_of_batch

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_workers)
    model = build()
    set_group_size(model, group_size)
    wrapped: Any = SimpleNamespace(get_base_model=lambda: model)
    ids = torch.randint(0, 4096, (1, length), generator=torch.Generator().manual_seed(1))
    batch = MicroBatch(ids, torch.arange(length)[None])
    link = counting(rank, num_workers)
    if method != "ropeway":
        import ray_jobs.finetune.attention as attention

        attention.attend_part = attention_of(method)
    if num_workers > 1:
        batch = part_of_batch(batch, link, group_size, RowCost(linear=2000.0))
    loaded = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    dist.barrier()
    started = time.perf_counter()
    loss = summed_loss(wrapped, batch, CHUNK_TOKENS, "chunked") / length
    sent = type(link).counted
    loss.backward()
    dist.barrier()
    seconds = time.perf_counter() - started
    memory = resident_bytes("VmHWM") - loaded
    most = torch.tensor([sent / model.config.num_hidden_layers, float(memory)], dtype=torch.float64)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    total = loss.detach().double()
    for tensor in (total, *grads):
        dist.all_reduce(tensor)
    if rank == 0:
        found = {
            "bytes_a_layer": int(most[0]),
            "memory_bytes": int(most[1]),
            "tokens_per_s": length / seconds,
            "loss": total.item(),
            "gradients": [round(g.double().norm().item(), 9) for g in grads],
            "projections": [round(projection(number, g), 9) for number, g in enumerate(grads)],
        }
        Path(folder, "result.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def projection(number: int, gradient: torch.Tensor) -> float:
    """Product of the gradient of that number with numbers of mean 0 and variance 1: as large as its norm, and another where it points
    elsewhere."""
    generator = torch.Generator().manual_seed(number)
    return float((gradient.double() * torch.randn(gradient.shape, generator=generator, dtype=torch.float64)).sum())


def cell(method: str, num_workers: int, length: int, group_size: int) -> dict[str, Any]:
    """Run one cell in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
        }
        command = [sys.executable, "-m", "benchmarks.sequence_parallel", "--worker", method]
        sizes = [str(n) for n in (num_workers, length, group_size)]
        running = [
            subprocess.Popen([*command, str(rank), *sizes, folder], env=environment, stderr=subprocess.PIPE, text=True)
            for rank in range(num_workers)
        ]
        errors = [process.communicate()[1] for process in running]
        if any(process.returncode for process in running):
            raise RuntimeError("\n".join(error[-1500:] for error in errors))
        found: dict[str, Any] = json.loads(Path(folder, "result.json").read_text())
        return found


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether loss and gradients agree. A projection may differ by as much as the gradient's norm allows."""
    pairs = zip([one["loss"], *one["gradients"]], [other["loss"], *other["gradients"]], strict=True)
    if not all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b), 1e-3) for a, b in pairs):
        return False
    sizes = (max(norm, 1e-3) for norm in one["gradients"])
    projections = zip(one["projections"], other["projections"], sizes, strict=True)
    return all(abs(a - b) <= 4 * TOLERANCE * size for a, b, size in projections)


def table(lengths: list[int], workers: list[int], group_size: int) -> list[dict[str, Any]]:
    """All cells, a row each, printed as they are done. RuntimeError if two disagree on loss or gradients."""
    rows: list[dict[str, Any]] = []
    print(f"{'tokens':>8} {'workers':>7} {'method':<8} {'MB a layer':>11} {'memory MB':>10} {'tokens/s':>9}")
    for length in lengths:
        first = None
        for count in workers:
            for method in METHODS if count > 1 else METHODS[:1]:
                found = cell(method, count, length, group_size)
                first = first or found
                if not is_same(found, first):
                    raise RuntimeError(f"{method} with {count} workers at {length} tokens has other gradients")
                rows.append({"tokens": length, "workers": count, "method": method} | found)
                print(
                    f"{length:>8,} {count:>7} {method:<8} {found['bytes_a_layer'] / 1e6:>11.2f} {found['memory_bytes'] / 1e6:>10,.0f} "
                    f"{found['tokens_per_s']:>9,.0f}",
                    flush=True,
                )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sequence_parallel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--group-size", type=int, default=GROUP_SIZE)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        method, *sizes, folder = args.worker
        rank, num_workers, length, group_size = map(int, sizes)
        worker(method, rank, num_workers, length, group_size, folder)
        return 0
    rows = table(list(args.lengths), list(args.workers), args.group_size)
    if args.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread a worker, float32, torch {torch.__version__}"
        record = {"machine": machine, "group_size": args.group_size, "rows": rows}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
