"""`python -m ray_jobs.prepare --params FILE|JSON`: read the corpus, chunk it and pack it into shards, on Ray Data."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import run_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.prepare", description=__doc__)
    parser.add_argument("--params", required=True, help="YAML or JSON file of PipelineParams, or JSON text")
    run_command(parser.parse_args().params, prepare)


def prepare(params: PipelineParams, storage: Storage, progress: Callable[[str], None]) -> Artifact:
    """Ingest and prepare; the closing tables go to standard error."""
    from rich.console import Console

    from ray_jobs.prepare.job import make_shards
    from tasks.pack.outcome import show_prepared

    documents, shards = make_shards(params, storage, progress)
    show_prepared(documents.manifest, shards.manifest, Console(stderr=True))
    return shards


if __name__ == "__main__":
    main()
