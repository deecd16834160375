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
    from ray_jobs.finetune import in_stages
    from ray_jobs.preflight import refuse_unadvisable, refuse_untrainable
    from ray_jobs.prepare.job import make_documents
    from tasks.rope_search.plans import with_stand_in

    refuse_unadvisable(params)
    documents, shards, checkpoint = (given.get(kind) for kind in ("documents", "shards", "checkpoints"))
    if "fine_tuned" not in params.advise.arms:
        checkpoint = None
    elif checkpoint is None:
        in_stages.refuse_given(params, given)
        refuse_untrainable(params)
        documents = documents or make_documents(params, storage, progress)
        longest = shards or in_stages.rows_of_stages(params, storage, progress, documents)[-1]
        stage.refuse_unadvisable(with_stand_in(params), storage, documents, longest)
        made = {"documents": documents} | ({"shards": shards} if shards else {})
        params, checkpoint = in_stages.train_in_stages(params, storage, progress, made)
    documents = documents or make_documents(params, storage, progress)
    params = in_stages.with_factors_of_last(params, storage, progress, documents, checkpoint)
    return stage.run(params, storage, documents, checkpoint, progress)


if __name__ == "__main__":
    main()
