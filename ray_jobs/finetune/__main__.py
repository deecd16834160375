"""Fine-tune on Ray Train, preparing the shards first where they are missing.

Prints progress on standard error and the checkpoint's place on standard output. A run that was cut off goes on from its last
checkpoint.
"""

from __future__ import annotations

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import Given, Progress, job_parser, run_command


def main() -> None:
    run_command(job_parser("finetune", __doc__, ("documents", "shards")).parse_args(), _finetune)


def _finetune(params: PipelineParams, storage: Storage, progress: Progress, given: Given) -> Artifact:
    from ray_jobs.finetune import checkpoint_stage as stage
    from ray_jobs.preflight import refuse_untrainable
    from ray_jobs.prepare.job import make_shards

    refuse_untrainable(params)
    shards = given.get("shards")
    if shards is None:
        _, shards = make_shards(params, storage, progress, given.get("documents"))
    return stage.run(params, storage, shards, progress)


if __name__ == "__main__":
    main()
