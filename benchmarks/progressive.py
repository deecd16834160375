"""Training in one stage against training in stages, at equal tokens: the demo base from 512 tokens to 8192.

`python -m benchmarks.progressive --work DIR [--tokens 524288] [--seeds 1] [--arms NAME ...] [--json FILE]`

`one-stage` trains rows of 8192 tokens. `stages` trains half of the tokens in rows of 2048, with the RoPE for that length, and the other
half in rows of 8192. `stages-one-rope` trains the same rows, all with the RoPE for 8192. All steps have 8192 tokens. With another
`--length` the first stage is half way to it, as a factor. Each arm runs on one thread and is measured on the same documents and
prompts. What is finished lies in `--work` and is found again; a stage that was stopped goes on from its last checkpoint. `--quick`
measures little, to see that it works.

Columns: steps, tokens, processor time of the training; perplexity at 8192 over that of scaling alone, at 512 over that of the base, and at
8192 over that of `one-stage`; score of each task at 8192 by depth, and its difference to `one-stage`. Intervals are paired over documents
or samples.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.progressive_run import ARMS
from benchmarks.recipes_arms import UNTRAINED
from benchmarks.recipes_table import Measured, ratio, score, table_of

FIRST = "one-stage"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.progressive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for what is finished")
    parser.add_argument("--length", type=int, default=8192, choices=(2048, 8192, 32768), help="target length in tokens")
    parser.add_argument("--tokens", type=int, default=524_288, help="tokens that each arm trains")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--arms", nargs="+", default=[FIRST, "stages"], choices=list(ARMS), metavar="NAME", help=", ".join(ARMS)
    )
    parser.add_argument("--quick", action="store_true", help="measure few documents and prompts")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    args = parser.parse_args()
    arms = list(dict.fromkeys([FIRST, *args.arms]))
    folder = args.work / f"{args.length}-{args.tokens}{'-quick' if args.quick else ''}"
    failed = 0
    for arm, seed in [*((arm, 0) for arm in UNTRAINED), *((arm, seed) for seed in range(args.seeds) for arm in arms)]:
        failed = _run(arm, seed, args.length, args.tokens, folder / f"{arm}-{seed}", quick=args.quick) or failed
    if failed:
        return failed
    table = progressive_table(folder, arms)
    print_progressive(table)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n")
    return 0


def _run(arm: str, seed: int, length: int, tokens: int, place: Path, *, quick: bool) -> int:
    if (place / "result.json").exists():
        return 0
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.progressive_run", arm, str(seed), str(length), str(tokens), str(place)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (place / "log.txt").open("a") as log:
        status = subprocess.call(command + ["--quick"] * quick, stdout=log, stderr=subprocess.STDOUT, env=environment)
    print(f"{arm}, seed {seed}: {'done' if not status else f'failed, see {log.name}'}", flush=True)
    return status


def progressive_table(folder: Path, arms: list[str]) -> dict[str, Any]:
    """The table of `benchmarks.recipes` for these arms, with what was trained and the comparison with one stage."""
    table, first = table_of(folder, arms), Measured.read(folder, FIRST)
    for row in table["arms"][1:]:
        arm = Measured.read(folder, row["arm"])
        row["tokens"] = [result["training"]["tokens"] for result in arm.results]
        row["stages"] = [result["training"]["stages"] for result in arm.results]
        row["perplexity_over_one_stage"] = ratio(arm, first, table["length"])
        row["tasks_over_one_stage"] = {
            task: score(arm, first, task, table["length"])["over_scaling_only"] for task in arm.tasks
        }
    return table


def print_progressive(table: dict[str, Any]) -> None:
    print(f"{table['machine']}; {table['window']} -> {table['length']} tokens, intervals of 95 %")
    for row in table["arms"]:
        over = _interval(row["perplexity_over_scaling_only"])
        print(f"{row['arm']}: perplexity over scaling only {over}, short {row['perplexity_over_base_at_its_window'][0]:.3f}")
        if "tokens" in row:
            lengths = " then ".join(f"{stage['steps']} steps at {stage['target_length']}" for stage in row["stages"][0])
            print(f"  {lengths}; {row['tokens'][0]:,} tokens in {row['processor_seconds'][0]:,.0f} s of processor time")
            print(f"  perplexity over one stage {_interval(row['perplexity_over_one_stage'])}")
        for name, found in row["tasks"].items():
            if found and name.endswith(f"@{table['length']}"):
                task = name.partition("@")[0]
                against = f"; minus one stage {_interval(row['tasks_over_one_stage'][task])}" if "tokens" in row else ""
                print(f"  {task} {found['score']:.0%}, by depth {found['by_depth']}{against}")


def _interval(found: list[float | None]) -> str:
    value, low, high = found
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
