"""Extend or chunk? Ask the same questions with whole documents, retrieved chunks and summaries of parts, and compare.

Uses the results of earlier stages, and makes those that are missing. Trains nothing unless `fine_tuned` is among advise.arms. Prints
progress on standard error and the advice's location on standard output. An interrupted run asks only what was not answered.
"""

from __future__ import annotations

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import Given, job_parser, run_command


def main() -> None:
    run_command(job_parser("advise", __doc__, ("documents", "shards", "checkpoints")).parse_args(), _advise)


def _advise(params: PipelineParams, storage: Storage, progress: ProgressCallback, given: Given) -> Artifact:
    from ray_jobs.advise import advice_stage as stage
    from ray_jobs.model_to_measure import documents_and_checkpoint
    from ray_jobs.preflight import refuse_unadvisable

    refuse_unadvisable(params)
    params, documents, checkpoint = documents_and_checkpoint(
        params,
        storage,
        progress,
        given,
        fine_tuned="fine_tuned" in params.advise.arms,
        refuse_unmeasurable=stage.refuse_unadvisable,
    )
    return stage.run(params, storage, documents, checkpoint, progress)


if __name__ == "__main__":
    main()
