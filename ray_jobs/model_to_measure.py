"""What the jobs `evaluate` and `advise` measure: documents and, where the fine-tuned model is asked for, a checkpoint."""

from __future__ import annotations

from collections.abc import Callable

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import Given

# UserError, before any training, if nothing can be measured on these documents, beside these shards.
RefuseUnmeasurable = Callable[[PipelineParams, Storage, Artifact, Artifact], None]


def documents_and_checkpoint(
    params: PipelineParams,
    storage: Storage,
    progress: ProgressCallback,
    given: Given,
    *,
    fine_tuned: bool,
    refuse_unmeasurable: RefuseUnmeasurable,
) -> tuple[PipelineParams, Artifact, Artifact | None]:
    """Given, found or made; with the parameters as a search for RoPE factors leaves them. Trains only if `fine_tuned` is asked for."""
    from ray_jobs.finetune import in_stages
    from ray_jobs.preflight import refuse_untrainable
    from ray_jobs.prepare.job import make_documents
    from tasks.rope_search.plans import with_stand_in

    documents, shards = given.get("documents"), given.get("shards")
    checkpoint = given.get("checkpoints") if fine_tuned else None
    if fine_tuned and checkpoint is None:
        in_stages.refuse_given(params, given)
        refuse_untrainable(params)
        documents = documents or make_documents(params, storage, progress)
        longest = shards or in_stages.rows_of_stages(params, storage, progress, documents)[-1]
        refuse_unmeasurable(with_stand_in(params), storage, documents, longest)
        made = {"documents": documents} | ({"shards": shards} if shards else {})
        params, checkpoint = in_stages.train_in_stages(params, storage, progress, made)
    documents = documents or make_documents(params, storage, progress)
    return in_stages.with_factors_of_last(params, storage, progress, documents, checkpoint), documents, checkpoint
