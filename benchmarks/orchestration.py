"""`python -m benchmarks.orchestration`: the chain run by its flow beside the same stage functions called one after another.

Each run is a process of its own with a fresh storage, in turn: `direct` calls the five stages and knows nothing of Prefect;
`embedded` is what `ropeway run` does, with Prefect's embedded server; `server` is the same against a server that is already
running. Every process writes down when it passes which point; the time between two points, less what `direct` needs for the
same, is what that part of the orchestration costs, so the parts add up to the whole difference.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

WAYS = ("direct", "embedded", "server")
# As short as a real run can be: what orchestration costs does not depend on how long the stages work.
SETTINGS = (
    "training.steps=2", "training.rows_per_step=2", "training.warmup_steps=1", "training.validation_rows=2", 'evaluation.tasks=["passkey"]',
    "evaluation.num_documents=8", "evaluation.lengths=[512,2048]", "evaluation.num_samples=2",
    "publish.current=always",  # two steps make no better model
)  # fmt: skip
STAGES = {
    "ingest": "tasks.ingest.documents_stage",
    "prepare": "tasks.pack.shards_stage",
    "finetune": "ray_jobs.finetune.checkpoint_stage",
    "evaluate": "ray_jobs.evaluate.evaluation_stage",
    "publish": "tasks.publish.release_stage",
}
PARTS = {
    "started": "interpreter and the command's imports",
    "checked": "parameters and preflight checks",
    "in the chain": "importing Prefect, starting or reaching a server, creating the flow run",
    "stages": "inside the stages",
    "between stages": "task runs: states, logs, artifacts, plots",
    "out of the chain": "the flow run's last states; what is left of logs and events",
    "printed": "closing tables, stopping the server",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__)
    parser.add_argument("--config", default="demo", help="a preset's name or a YAML file")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help=f"default: {' '.join(SETTINGS)}")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way; medians are reported")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = list(arguments.set or SETTINGS)
    if arguments.way:
        run_once(arguments.way, arguments.config, settings)
        return
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="ropeway-bench-") as folder, prefect_server(Path(folder)) as url:
        for repeat in range(arguments.repeats):
            for way in WAYS:
                home = Path(folder) / f"{way}-{repeat}"
                runs[way].append(measure(way, home, arguments.config, settings, url))
                print(json.dumps({"way": way} | runs[way][-1]), file=sys.stderr, flush=True)
    figures = report(runs)
    if arguments.json:
        machine = {"machine": f"{platform.machine()}, {os.cpu_count()} CPUs", "settings": settings, "runs": runs}
        arguments.json.write_text(json.dumps(machine | figures, indent=1) + "\n")


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """The API address of a Prefect server on loopback, with a database of its own."""
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_HOME": str(folder / "server")}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).read()
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def measure(way: str, home: Path, config: str, settings: list[str], url: str) -> dict[str, float]:
    """Seconds of one run, by part."""
    home.mkdir()
    marks = home / "marks.jsonl"
    environment = os.environ | {"PREFECT_HOME": str(home / "prefect"), "ROPEWAY_MARKS": str(marks)}
    environment.pop("PREFECT_API_URL", None)
    if way == "server":
        environment["PREFECT_API_URL"] = url
    command = [sys.executable, "-m", "benchmarks.orchestration", "--way", way, "--config", config]
    command += [f"--set={setting}" for setting in (*settings, f"storage={home / 'storage'}")]
    begin = time.time()
    with (home / "log.txt").open("w") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=log)
    end = time.time()
    if done.returncode:
        raise SystemExit(f"A {way} run failed:\n{(home / 'log.txt').read_text()[-3000:]}")
    return parts([json.loads(line) for line in marks.read_text().splitlines()], begin, end)


def parts(marks: list[dict[str, Any]], begin: float, end: float) -> dict[str, float]:
    """Seconds between the marks, added up by what they belong to."""
    seconds = dict.fromkeys(PARTS, 0.0)
    last = begin
    for mark in [*marks, {"name": "printed", "at": end}]:
        seconds[mark["name"]] += mark["at"] - last
        last = mark["at"]
    return {name: round(value, 2) for name, value in seconds.items()} | {"total": round(end - begin, 2)}


def mark(name: str) -> None:
    """Write down that what `name` stands for ends here."""
    with open(os.environ["ROPEWAY_MARKS"], "a") as file:
        print(json.dumps({"name": name, "at": time.time()}), file=file)


def run_once(way: str, config: str, settings: list[str]) -> None:
    """One run in this process, as `ropeway run` would do it or by the stages alone."""
    from flows.check_inputs import check_inputs
    from flows.config import load_config

    mark("started")
    params = load_config(config, settings)
    check_inputs(params)
    mark("checked")
    for module in STAGES.values():
        stage = import_module(module)
        stage.run = marked(stage.run)  # type: ignore[attr-defined]
    if way == "direct":
        mark("in the chain")
        location = by_stages(params)
        mark("out of the chain")
        print(location)
        return
    from flows.chain import Chain
    from flows.commands.outcome import print_outcome
    from flows.terminal import run_flow

    published = Chain.published

    def marked_chain(chain: Chain) -> Any:
        mark("in the chain")
        artifact = published(chain)
        mark("between stages")
        return artifact

    Chain.published = marked_chain  # type: ignore[method-assign]
    location = run_flow("extend_context", params)
    mark("out of the chain")
    print_outcome(params, location)


def marked(stage_run: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        mark("between stages")
        try:
            return stage_run(*arguments)
        finally:
            mark("stages")

    return run


def by_stages(params: Any) -> str:
    """The chain without any orchestration."""
    from functools import partial

    from data_schemas.progress import print_progress
    from data_schemas.storage import Storage
    from ray_jobs.evaluate import evaluation_stage as evaluate
    from ray_jobs.finetune import checkpoint_stage as finetune
    from ray_jobs.prepare.ray_data import workers_for
    from tasks.ingest import documents_stage as ingest
    from tasks.pack import shards_stage as pack
    from tasks.publish import release_stage as publish

    storage, workers = Storage(params.storage), partial(workers_for, params)

    documents = ingest.run(params, storage, workers, print_progress)
    shards = pack.run(params, storage, documents, workers, print_progress)
    checkpoint = finetune.run(params, storage, shards, print_progress)
    evaluation = evaluate.run(params, storage, documents, checkpoint, print_progress)
    return publish.run(params, storage, documents, shards, checkpoint, evaluation, print_progress).location


def report(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Print the medians by part, and what they are more than those of `direct`."""
    from rich.console import Console
    from rich.table import Table

    medians = {
        way: {part: round(statistics.median(run[part] for run in of), 2) for part in (*PARTS, "total")}
        for way, of in runs.items()
    }
    table = Table(
        "part", *(f"{way} s" for way in WAYS), "embedded - direct s", "ratio", title=f"{len(runs['direct'])} run(s) each"
    )
    for part in (*PARTS, "total"):
        direct, embedded = medians["direct"][part], medians["embedded"][part]
        ratio = f"{embedded / direct:.1f}x" if direct >= 0.1 else "-"
        table.add_row(PARTS.get(part, part), *(f"{medians[way][part]:.1f}" for way in WAYS), f"{embedded - direct:.1f}", ratio)
    Console(width=140).print(table)
    return {"medians": medians, "overhead_s": round(medians["embedded"]["total"] - medians["direct"]["total"], 2)}


if __name__ == "__main__":
    main()
