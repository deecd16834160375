"""Fine-tune on Ray Train; shards that are missing are prepared first.

Prints progress on standard error and the checkpoint's place on standard output. An interrupted run continues from its last
checkpoint.
"""

from __future__ import annotations

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import Given, job_parser, run_command


def main() -> None:
    run_command(job_parser("finetune", __doc__, ("documents", "shards")).parse_args(), _finetune)


def _finetune(params: PipelineParams, storage: Storage, progress: ProgressCallback, given: Given) -> Artifact:
    from ray_jobs.finetune import checkpoint_stage as stage
    from ray_jobs.preflight import refuse_untrainable
    from ray_jobs.prepare.job import make_shards
    from ray_jobs.search_rope.before_training import with_found_factors

    refuse_untrainable(params)
    shards = given.get("shards")
    if shards is None:
        _, shards = make_shards(params, storage, progress, given.get("documents"))
    params = with_found_factors(params, storage, progress, given.get("documents"))
    return stage.run(params, storage, shards, progress)


if __name__ == "__main__":
    main()
