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
    from rich.console import Console

    from ray_jobs.prepare.workers import ray_workers
    from tasks.ingest import stage as ingest
    from tasks.pack import stage as pack
    from tasks.pack.outcome import show_prepared

    with ExitStack() as stack:

        @cache
        def workers() -> Workers:
            return stack.enter_context(ray_workers(params.ray))

        documents = ingest.run(params, storage, lambda _: nullcontext(workers()), progress)
        shards = pack.run(params, storage, documents, lambda _: nullcontext(workers()), progress)
    show_prepared(documents.manifest, shards.manifest, Console(stderr=True))
    return shards


if __name__ == "__main__":
    main()
