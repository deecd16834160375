"""Training on a GPU: throughput, memory and one real extension, each in calls of a few minutes.

    python -m benchmarks.gpu_training throughput --models smollm2-135m llama-1b --lengths 8192 32768 --json FILE
    python -m benchmarks.gpu_training extend --params RUN.json --shards DIR --documents DIR --work DIR --json FILE

`throughput` measures training steps of randomly initialised Llamas of known shapes: S2-Attn beside full attention with the
same kernels, and each memory feature switched off or on alone. Cases already in FILE are not measured again, and none is
started after --limit-s, so the same call is repeated until nothing is left; one that does not fit the memory is recorded so.
`extend` trains and measures a real base on shards and documents that `ropeway prepare` made (RUN.json: the parameters of that
run); the folder --work keeps what is done. Needed beside Python: torch, transformers, peft, pyarrow, numpy and pydantic; scipy for the
last step of `extend`, which may be made on another machine with the same --work. Without a GPU it runs on the CPU: try --models tiny.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NEEDED = ("torch", "transformers", "peft", "pyarrow", "numpy", "pydantic")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    throughput = commands.add_parser("throughput", help="tokens a second, MFU and peak memory, S2-Attn beside full attention")
    throughput.add_argument("--models", nargs="+", default=["smollm2-135m"])
    throughput.add_argument("--lengths", type=int, nargs="+", default=[8192, 16384, 32768, 65536])
    throughput.add_argument("--variants", nargs="+", default=["s2", "full"])
    throughput.add_argument("--steps", type=int, default=3, help="measured steps, after one to warm up")
    throughput.add_argument("--bases", type=Path, default=Path("/tmp/random-bases"), help="folder for the random bases")
    extend = commands.add_parser("extend", help="a real extension: train, then perplexity by length and passkey")
    extend.add_argument("--params", type=Path, required=True, help="parameters of the run as JSON")
    extend.add_argument("--base", help="the base's folder on this machine, if not where the parameters say")
    extend.add_argument("--shards", type=Path, required=True)
    extend.add_argument("--documents", type=Path, required=True)
    extend.add_argument("--work", type=Path, required=True)
    for command in (throughput, extend):
        command.add_argument("--json", type=Path, required=True, help="the results, read and extended")
        command.add_argument("--limit-s", type=float, default=480, help="start nothing new after so many seconds")
        command.add_argument("--cpu", action="store_true", help="use the CPU though there is a GPU")
    args = parser.parse_args(arguments)
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        sys.exit(f"gpu_training needs {', '.join(missing)}: install them, or put their folders on PYTHONPATH.")
    return run_throughput(args) if args.command == "throughput" else run_extension(args)


def this_device(args: argparse.Namespace) -> torch.device:
    import torch

    return torch.device("cuda", 0) if torch.cuda.is_available() and not args.cpu else torch.device("cpu")


def machine(device: torch.device) -> dict[str, Any]:
    """What figures depend on."""
    import peft
    import torch
    import transformers

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    return {"device": name, "device_memory_bytes": memory, **versions}


def keep(file: Path, record: dict[str, Any]) -> None:
    """Written whole or not at all: the next call reads it."""
    staged = file.with_name(f".{file.name}.part")
    staged.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(staged, file)


def run_throughput(args: argparse.Namespace) -> int:
    """Measure what is missing in the results; 0 when nothing is left, 3 when the time was over before."""
    import torch

    from benchmarks.throughput_cases import SHAPES, VARIANTS, Case, measure_case, release
    from data_schemas.errors import UserError

    if unknown := {*args.models} - SHAPES.keys() | {*args.variants} - VARIANTS.keys():
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; models {', '.join(SHAPES)}; variants {', '.join(VARIANTS)}")
    device, started = this_device(args), time.monotonic()
    record: dict[str, Any] = (
        json.loads(args.json.read_text()) if args.json.exists() else {"machine": machine(device), "cases": {}}
    )
    if record["machine"]["device"] != machine(device)["device"]:
        sys.exit(f"{args.json} holds results of {record['machine']['device']}: name another file for this machine.")
    left = 0
    for case in (Case(*one) for one in product(args.models, args.lengths, args.variants)):
        if case.name in record["cases"]:
            continue
        if time.monotonic() - started > args.limit_s:
            left += 1
            continue
        print(f"measuring {case.name}", flush=True)
        try:
            result: dict[str, Any] = measure_case(case, args.bases, args.steps, device)
        except torch.cuda.OutOfMemoryError:
            result = {"failed": "does not fit the memory"}
        except UserError as error:
            result = {"failed": str(error)}
        except Exception as error:  # such as of a compiler that is missing: the other cases do not need it
            result = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        record["cases"][case.name] = result
        keep(args.json, record)
        if "CUDA error" in result.get("failed", ""):
            sys.exit(f"{case.name}: {result['failed']} No other case can run in this process: run the same again.")
        release(device)
    print_throughput(record)
    if left:
        print(f"{left} cases left: run the same again.")
    return 3 if left else 0


def print_throughput(record: dict[str, Any]) -> None:
    """One line a case; the ratio is of tokens a second to those of `full` at the same model and length."""
    cases = record["cases"]
    print(f"{record['machine']['device']}, torch {record['machine']['torch']}; LoRA, norms and embeddings, one row a step")
    print(f"{'case':<44} {'tokens/s':>10} {'MFU':>6} {'peak GiB':>9} {'ratio':>7}  executor")
    for name, case in cases.items():
        if "failed" in case:
            print(f"{name:<44} {case['failed']}")
            continue
        full = cases.get(f"{name.rsplit('/', 1)[0]}/full", {}).get("tokens_per_s")
        ratio = f"{case['tokens_per_s'] / full:.1f}x" if full else "-"
        mfu = f"{case['mfu']:.0%}" if case["mfu"] is not None else "-"
        peak = f"{case['peak_bytes'] / 2**30:.1f}" if case["peak_bytes"] is not None else "-"
        kernel = case["executor"].removeprefix("attention computed by ").split(" ")[0]
        print(f"{name:<44} {case['tokens_per_s']:>10,.0f} {mfu:>6} {peak:>9} {ratio:>7}  {kernel}")


def run_extension(args: argparse.Namespace) -> int:
    """Go on with training and measuring; 0 when the report is written, 3 when the time was over before, 4 without scipy."""
    from benchmarks.extension_run import OutOfTime, measure_arms, report_on, train_on
    from data_schemas.params import PipelineParams

    device, deadline = this_device(args), time.monotonic() + args.limit_s
    params = PipelineParams.model_validate_json(args.params.read_text())
    if args.base:
        params = params.model_copy(update={"model": params.model.model_copy(update={"base": args.base})})

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        checkpoint = train_on(params, args.shards, args.work, device, deadline, say)
        folders = measure_arms(params, args.documents, checkpoint, args.work, device, deadline, say)
    except OutOfTime as stopped:
        print(f"{stopped}: run the same again.")
        return 3
    noted = args.work / "machine.json"  # that which measured, not that which reports
    if not noted.exists():
        noted.write_text(json.dumps(machine(device)))
    if not importlib.util.find_spec("scipy"):
        print(f"Trained and measured. The report needs scipy: run the same, with {args.work}, on a machine that has it.")
        return 4
    report = report_on(params, args.documents, folders)
    keep(
        args.json,
        {
            "machine": json.loads(noted.read_text()),
            "params": params.model_dump(mode="json", exclude={"storage", "corpus"}),
            "report": report.model_dump(mode="json", exclude_unset=True),
        },
    )
    print(f"{'model':<14} {'length':>8} {'perplexity':>11} {'ratio':>7}")
    base = {cell.length: cell.perplexity for cell in report.perplexity if cell.arm == "base"}
    for cell in report.perplexity:
        print(f"{cell.arm:<14} {cell.length:>8} {cell.perplexity:>11.3f} {base[cell.length] / cell.perplexity:>6.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
