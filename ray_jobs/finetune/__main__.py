"""Fine-tune on Ray Train; shards that are missing are prepared first.

Prints progress on standard error and the checkpoint's place on standard output. An interrupted run continues from its last
checkpoint. With `training.stages` it trains one stage after the other. `--given checkpoints=DIGEST` goes on from that checkpoint.
"""

from __future__ import annotations

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import Given, job_parser, run_command


def main() -> None:
    run_command(job_parser("finetune", __doc__, ("documents", "shards", "checkpoints")).parse_args(), _finetune)


def _finetune(params: PipelineParams, storage: Storage, progress: ProgressCallback, given: Given) -> Artifact:
    from ray_jobs.finetune.in_stages import refuse_given, train_in_stages
    from ray_jobs.preflight import refuse_untrainable

    refuse_given(params, given)
    refuse_untrainable(params)
    return train_in_stages(params, storage, progress, given)[1]


if __name__ == "__main__":
    main()
