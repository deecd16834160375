"""What a GPU is first needed for, in one call of at most eight minutes: parity of all kernels, then throughput of training.

    python -m benchmarks.gpu_all --out DIR [--limit-s 460] [--models smollm2-135m llama-1b] [--variants s2 full s2-compiled]
    python -m benchmarks.gpu_all --out DIR --cpu --models tiny --lengths 128 --steps 1 --tokens 128     # tries the scripts without a GPU

Writes parity.json, throughput.json and summary.json to DIR. The same call again goes on with what is missing in throughput.json, which
`ropeway plan --measured` reads. Exit status 1 if a kernel is outside its tolerance: then its speeds mean nothing, and none are measured;
2 without a GPU, 3 where the time was over before the last case.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_training import NEEDED

LENGTHS = ("8192", "32768")
VARIANTS = ("s2", "full", "s2-bf16-hidden", "s2-compiled", "s2-compiled-bf16-hidden", "s2-attention-recomputed", "s2-fp8", "s2-liger-norms",
            "s2-offload", "s2-no-checkpointing")  # fmt: skip
_RESERVE_S = 60  # a case that was begun in time may still be running


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit-s", type=float, default=460)
    parser.add_argument("--models", nargs="+", default=["smollm2-135m", "llama-1b"])
    parser.add_argument("--lengths", nargs="+", default=list(LENGTHS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--steps", default="3")
    parser.add_argument("--tokens", help="of the parity's rows; smaller is faster")
    parser.add_argument("--cpu", action="store_true", help="try the scripts on the CPU; with --models tiny it takes minutes")
    args = parser.parse_args(arguments)
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        print(f"gpu_all needs {', '.join(missing)}: install them, or put their folders on PYTHONPATH.")
        return 2
    if not args.cpu and (why := _no_gpu()):
        print(f"{why} Nothing was measured. To try the scripts on the CPU, add --cpu --models tiny --lengths 128.")
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    on_cpu = ["--cpu"] if args.cpu else []
    started = time.monotonic()
    summary: dict[str, Any] = {}
    parity = args.out / "parity.json"
    if not parity.exists() or not _passes(parity):
        tokens = ["--tokens", args.tokens] if args.tokens else []
        summary["parity"] = _run("benchmarks.gpu_parity", "--json", str(parity), *tokens, *on_cpu)
    summary["parity_within_tolerance"] = parity.exists() and _passes(parity)
    if summary["parity_within_tolerance"]:
        left = max(0.0, args.limit_s - (time.monotonic() - started) - _RESERVE_S)
        summary["throughput"] = _run(
            "benchmarks.gpu_training", "throughput", "--models", *args.models, "--lengths", *args.lengths, "--variants", *args.variants,
            "--steps", args.steps, "--bases", str(args.out / "bases"), "--limit-s", str(left), "--json", str(args.out / "throughput.json"),
            *on_cpu,
        )  # fmt: skip
    elif parity.exists():
        print(f"A kernel is outside its tolerance, see {parity}: speeds would mean nothing, so none were measured.")
    else:
        print(f"benchmarks.gpu_parity ended with status {summary['parity']} and wrote no results, so no speed was measured.")
    summary["seconds"] = round(time.monotonic() - started)
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return int(summary.get("throughput", 1))


def _no_gpu() -> str | None:
    """Why torch can use no GPU here, as a sentence; None if it can."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is a build for CPUs: install a build for your GPU."
    return f"torch {torch.__version__} finds no GPU: see what nvidia-smi says, and whether CUDA_VISIBLE_DEVICES hides it."


def _passes(parity: Path) -> bool:
    rows = json.loads(parity.read_text())["rows"]
    return bool(rows) and all(row["margin"] >= 1 for row in rows)


def _run(module: str, *arguments: str) -> int:
    """Exit status of a benchmark, whose output goes on to this one's."""
    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
