"""Every executor on this machine beside a dense float64 reference: outputs and gradients of S2-Attn, full and windowed.

`python -m benchmarks.gpu_parity [--tokens 2304] [--json FILE]`; it needs only torch, and exits with status 1 where an error is
above its tolerance. On a GPU it tries flash_attn (if installed), torch's varlen kernels and SDPA, on a CPU what runs there. The
error is |ours - reference| / |reference|, the worst of the cases in a line: documents of uneven lengths, one of them a single
token; multi-head, grouped and multi-query attention. The last column tells how far below its tolerance the worst error is.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch

from ray_jobs.finetune.attention import shifted_sparse_attention
from ray_jobs.finetune.executors import EXECUTORS, obstacle
from ray_jobs.finetune.segments import RowSegments, segment_batch

# Rounding of the inputs' type, times a small factor; float32 without TF32.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
HEADS = [(9, 3), (8, 2), (4, 4), (5, 1)]  # SmolLM2-135M; grouped; multi-head; multi-query
PATTERNS = ("s2", "full", "window")
FEWEST = 96  # tokens: the last document of a row has one then


@dataclass(frozen=True)
class Line:
    executor: str
    dtype: str
    head_dim: int
    pattern: str
    output_error: float
    gradient_error: float
    tolerance: float

    @property
    def margin(self) -> float:
        return self.tolerance / max(self.output_error, self.gradient_error, 1e-12)


def lengths_of(tokens: int) -> list[int]:
    """Uneven documents that add up to about `tokens`."""
    return [tokens * 5 // 8, 1, tokens // 4, 3, tokens // 16 + 1, tokens // 16 - 5]


def allowed(lengths: list[int], group: int, pattern: str, shifted: bool, window: int, device: torch.device) -> torch.Tensor:
    """Bool [T, T] from the definition: query i may see key j."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)
    offset = torch.cat([torch.arange(n) for n in lengths]).to(device)
    mask = (document[:, None] == document) & (offset[:, None] >= offset)
    if pattern == "window":
        mask &= offset[:, None] - offset < window
    if pattern == "s2":
        segment = torch.where(offset < group // 2, 0, 1 + (offset - group // 2) // group) if shifted else offset // group
        mask &= segment[:, None] == segment
    return mask


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, masks: list[torch.Tensor]) -> torch.Tensor:
    """[T, H, D] in float64, one head at a time; `masks[h]` is bool [T, T]."""
    heads, kv_heads = query.shape[1], key.shape[1]
    out = []
    for head in range(heads):
        kv = head * kv_heads // heads
        scores = query[:, head] @ key[:, kv].T * query.shape[-1] ** -0.5
        out.append(scores.masked_fill(~masks[head], float("-inf")).softmax(-1) @ value[:, kv])
    return torch.stack(out, dim=1)


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs).norm() / theirs.norm())


def run_executor(name: str, pattern: str, tensors: list[torch.Tensor], segments: RowSegments, window: int) -> torch.Tensor:
    execute, scale = EXECUTORS[name], tensors[0].shape[-1] ** -0.5
    if pattern == "s2":
        return shifted_sparse_attention(*tensors, segments, execute, scale)
    return execute(*tensors, segments.documents, scale, window=window if pattern == "window" else None)


def compare(
    name: str, dtype: torch.dtype, head_dim: int, pattern: str, heads: tuple[int, int], tokens: int, device: torch.device
) -> tuple[float, float]:
    """(error of the output, worst error of the three gradients) of one case."""
    lengths, group, window = lengths_of(tokens), tokens // 8, tokens // 20
    num_heads, num_kv = heads
    generator = torch.Generator().manual_seed(tokens + head_dim)
    draw = [torch.randn(sum(lengths), n, head_dim, generator=generator) for n in (num_heads, num_kv, num_kv, num_heads)]
    *tensors, gradient = (t.to(device, dtype) for t in draw)
    ours = [t.clone().requires_grad_() for t in tensors]
    theirs = [t.double().requires_grad_() for t in tensors]  # of the rounded inputs, so that only the computing is compared
    positions = torch.cat([torch.arange(n) for n in lengths])[None].to(device)
    segments = segment_batch(positions, group)
    split = (num_heads + 1) // 2 if num_kv == 1 else (num_kv + 1) // 2 * (num_heads // num_kv)
    plain, shifted = (allowed(lengths, group, pattern, kind, window, device) for kind in (False, True))
    expected = reference(*theirs, [plain if head < split else shifted for head in range(num_heads)])
    output = run_executor(name, pattern, ours, segments, window)
    output.backward(gradient)
    expected.backward(gradient.double())
    gradients = [error(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True) if a.grad is not None and b.grad is not None]
    return error(output.detach(), expected.detach()), max(gradients)


def measure(tokens: int, head_dims: list[int], device: torch.device) -> tuple[list[Line], list[str]]:
    """One line an executor, type, head dimension and pattern; and why those left out were."""
    lines, absent = [], []
    for name, dtype, head_dim in product(EXECUTORS, TOLERANCES, head_dims):
        kind = str(dtype).removeprefix("torch.")
        if why := obstacle(name, device, dtype, head_dim):
            absent.append(f"{name} {kind}: {why}")
            continue
        for pattern in PATTERNS:
            errors = [compare(name, dtype, head_dim, pattern, heads, tokens, device) for heads in HEADS]
            worst = [max(column) for column in zip(*errors, strict=True)]
            lines.append(Line(name, kind, head_dim, pattern, worst[0], worst[1], TOLERANCES[dtype]))
    return lines, list(dict.fromkeys(absent))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=None, help="tokens in a row; 2304 on a GPU, 256 on a CPU")
    parser.add_argument("--head-dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--cpu", action="store_true", help="use the CPU though there is a GPU")
    args = parser.parse_args(arguments)
    if args.tokens is not None and args.tokens < FEWEST:
        parser.error(f"--tokens {args.tokens}: the documents of a row need {FEWEST} tokens")
    device = torch.device("cuda", 0) if torch.cuda.is_available() and not args.cpu else torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    tokens = args.tokens or (2304 if device.type == "cuda" else 256)
    lines, absent = measure(tokens, args.head_dims, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU (no CUDA kernel was run)"
    print(f"{name}, torch {torch.__version__}; {sum(lengths_of(tokens))} tokens in documents of {lengths_of(tokens)}")
    for reason in absent:
        print(f"not run: {reason}")
    print(f"{'executor':<13} {'type':<9} {'D':>4} {'pattern':<7} {'output':>9} {'gradients':>9} {'tolerance':>9} {'margin':>8}")
    for line in lines:
        print(
            f"{line.executor:<13} {line.dtype:<9} {line.head_dim:>4} {line.pattern:<7} {line.output_error:>9.1e} "
            f"{line.gradient_error:>9.1e} {line.tolerance:>9.1e} {line.margin:>7.1f}x"
        )
    if args.json:
        rows = [asdict(line) | {"margin": line.margin} for line in lines]
        record = {"device": name, "torch": torch.__version__, "tokens": tokens, "not_run": absent, "rows": rows}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return int(any(line.margin < 1 for line in lines))


if __name__ == "__main__":
    sys.exit(main())
