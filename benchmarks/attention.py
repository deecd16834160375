"""S2-Attn beside full attention: forward and backward of one attention layer, by length, in one run.

`python -m benchmarks.attention [--lengths 2048 4096] [--json FILE]`. The two are timed in turn, several times, and the median
of the pairwise ratios is printed, so that a machine that slows down slows both. "full" is torch's own causal
scaled_dot_product_attention, which is FlashAttention on CPU and GPU alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ray_jobs.finetune.attention import shifted_sparse_attention
from ray_jobs.finetune.executors import choose_executor, choose_name
from ray_jobs.finetune.segments import default_group_size, segment_batch


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(length: int, num_heads: int, num_kv: int, head_dim: int, repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of full attention and S2-Attn, and the median ratio, for one document of `length` tokens."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    tensors = [
        torch.randn(length, n, head_dim, device=device, dtype=dtype, requires_grad=True) for n in (num_heads, num_kv, num_kv)
    ]
    positions = torch.arange(length, device=device)[None]
    scale = head_dim**-0.5
    gradient = torch.randn(length, num_heads, head_dim, device=device, dtype=dtype)
    execute = choose_executor("auto", tensors[0])

    def full() -> None:
        query, key, value = (t.transpose(0, 1)[None] for t in tensors)
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=num_heads != num_kv)
        out[0].transpose(0, 1).backward(gradient)

    def sparse() -> None:
        segments = segment_batch(positions, default_group_size(length))
        shifted_sparse_attention(*tensors, segments, execute, scale).backward(gradient)

    pairs = []
    for _ in range(repeats + 1):
        pairs.append((timed(full, device), timed(sparse, device)))
    pairs = pairs[1:]  # the first warms up
    return {
        "length": length,
        "executor": choose_name("auto", device, dtype, head_dim),
        "full_s": statistics.median(a for a, _ in pairs),
        "s2_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.processor() or platform.machine()} CPU"
    rows = [compare(n, args.heads, args.kv_heads, args.head_dim, args.repeats, device) for n in args.lengths]
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads; {args.heads} heads, {args.kv_heads} KV heads, "
          f"head dim {args.head_dim}, group = length / 4; forward + backward")  # fmt: skip
    print(f"{'length':>8} {'full (s)':>10} {'S2 (s)':>10} {'ratio':>7}  executor")
    for row in rows:
        print(f"{row['length']:>8} {row['full_s']:>10.3f} {row['s2_s']:>10.3f} {row['ratio']:>6.1f}x  {row['executor']}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"device": name, "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
