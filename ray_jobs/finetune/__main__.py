"""`python -m ray_jobs.finetune --params FILE|JSON`: fine-tune on Ray, preparing the shards first where they are missing."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import run_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.finetune", description=__doc__)
    parser.add_argument("--params", required=True, help="YAML or JSON file of PipelineParams, or JSON text")
    run_command(parser.parse_args().params, _finetune)


def _finetune(params: PipelineParams, storage: Storage, progress: Callable[[str], None]) -> Artifact:
    from ray_jobs.finetune import stage
    from ray_jobs.prepare.job import make_shards

    _, shards = make_shards(params, storage, progress)
    return stage.run(params, storage, shards, progress)


if __name__ == "__main__":
    main()
