"""`python -m ray_jobs.prepare --params FILE|JSON`: read the corpus, chunk it and pack it into shards."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import cache

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import run_command
from tasks.workers import Workers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.prepare", description=__doc__)
    parser.add_argument("--params", required=True, help="YAML or JSON file of PipelineParams, or JSON text")
    run_command(parser.parse_args().params, prepare)


def prepare(params: PipelineParams, storage: Storage, progress: Callable[[str], None]) -> Artifact:
    """Ingest and prepare on Ray Data, which is started when there is work; the closing tables go to standard error."""
    from ray_jobs.prepare.workers import ray_workers
    from tasks.ingest import stage as ingest
    from tasks.pack import stage as pack

    with ExitStack() as stack:

        @cache
        def workers() -> Workers:
            return stack.enter_context(ray_workers(params.ray))

        documents = ingest.run(params, storage, lambda _: nullcontext(workers()), progress)
        shards = pack.run(params, storage, documents, lambda _: nullcontext(workers()), progress)
    _show(documents, shards)
    return shards


def _show(documents: Artifact, shards: Artifact) -> None:
    from rich.console import Console
    from rich.table import Table

    read, packed = documents.manifest.summary, shards.manifest.summary
    console = Console(stderr=True)
    inputs = Table("documents", "number", title="Corpus")
    for name in (
        "train", "heldout", "duplicates", "near_duplicates", "contaminated", "skipped_short", "skipped_language"
    ):  # fmt: skip
        inputs.add_row(name.replace("_", " "), f"{read[f'num_{name}']:,}")
    for reason, count in read["quarantined"].items():
        inputs.add_row(f"quarantined: {reason}", f"{count:,}")
    console.print(inputs)
    buckets = Table(title=f"{packed['num_rows']:,} rows, {packed['num_tokens']:,} tokens, {packed['waste']:.2%} waste")
    for name in ("up to tokens", "chunks", "tokens", "repeats", "packed chunks", "packed tokens"):
        buckets.add_column(name, justify="right")
    for bucket in packed["buckets"]:
        keys = ("upper_bound", "num_chunks", "num_tokens", "repeats", "num_used", "num_used_tokens")
        buckets.add_row(*(f"{bucket[key]:,}" for key in keys))
    console.print(buckets)


if __name__ == "__main__":
    main()
