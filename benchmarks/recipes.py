"""Which recipe trains best in equal time.

`python -m benchmarks.recipes --work DIR [--length 2048] [--seconds 240] [--seeds 3] [--arms NAME ...] [--json FILE]`

Each arm trains the demo base with LoRA from 512 tokens to `--length` on the running Python's library, for the same processor time on one
thread, so other work on the machine matters little. A first trial of a few steps tells how many steps that is. Every arm is
measured on the same documents and prompts. What is finished lies in `--work` and is found again, so the table can be made over days;
`--at-once 2` runs two arms beside each other.

Columns: steps; tokens a second; peak memory; perplexity over that of scaling alone at the longest length, and over that of the base at its
window; score and recall gain of each task at the longest length by depth; answers of retrieval documents that are right, by kind, on
held-out text. Intervals are paired over documents or samples, after each was averaged over the seeds; `seeds` lists each seed's
perplexity ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.recipes_arms import ARMS, UNTRAINED
from benchmarks.recipes_table import print_table, table_of


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for what is finished")
    parser.add_argument("--length", type=int, default=2048, help="target length in tokens")
    parser.add_argument("--seconds", type=int, default=240, help="processor time that an arm may train")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="NAME", help=", ".join(ARMS))
    parser.add_argument("--at-once", type=int, default=1, help="arms that run at the same time, each on one thread")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further arm after so long")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    args = parser.parse_args()
    folder = args.work / f"{args.length}-{args.seconds}s"
    folder.mkdir(parents=True, exist_ok=True)
    runs = [(arm, 0) for arm in UNTRAINED] + [(arm, seed) for seed in range(args.seeds) for arm in args.arms]
    started = time.monotonic()

    def run(arm: str, seed: int) -> int:
        place = folder / f"{arm}-{seed}"
        if (place / "result.json").exists() or time.monotonic() - started > args.minutes * 60:
            return 0
        place.mkdir(exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "benchmarks.recipes_run",
            arm,
            str(seed),
            str(args.length),
            str(args.seconds),
            str(place),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (place / "log.txt").open("w") as log:
            status = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        print(f"{arm}, seed {seed}: {'done' if not status else f'failed, see {log.name}'}", flush=True)
        return status

    failed = run(*runs[0])  # alone: it makes the rows and the documents that the others read
    with ThreadPoolExecutor(args.at_once) as pool:
        failed = max([failed, *pool.map(lambda one: run(*one), runs[1:])])
    table = table_of(folder, [arm for arm in ARMS if any(folder.glob(f"{arm}-[0-9]*/result.json"))])
    print_table(table)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
