"""The search as the first step of another job, where model.rope_method is longrope and there is no factors file."""

from __future__ import annotations

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage


def refuse_unsearchable(params: PipelineParams, documents: Artifact) -> None:
    """UserError if a training stage after the first could not search its factors on these documents.

    Such a search begins when the stages before it are trained. That of the first stage refuses the same by itself.
    """
    for number, stage in enumerate(params.by_stage()):
        if number and stage.searches_rope:
            from ray_jobs.search_rope.search_stage import search_samples
            from tasks.rope_search.plans import space_of

            try:
                search_samples(stage, documents.path, space_of(stage))
            except UserError as error:
                raise UserError(params.told_of_stage(number, error)) from error


def with_found_factors(
    params: PipelineParams,
    storage: Storage,
    progress: ProgressCallback,
    documents: Artifact | None,
    start: Artifact | None = None,
) -> PipelineParams:
    """`params` with what a search chose, which is made or found; as they are if they need none.

    `start`: the checkpoint on whose model it searches; None: the base.
    """
    if not params.searches_rope:
        return params
    from ray_jobs.prepare.job import make_documents
    from ray_jobs.search_rope import search_stage
    from tasks.rope_search.plans import with_result

    documents = documents or make_documents(params, storage, progress)
    return with_result(params, search_stage.run(params, storage, documents, progress, start))
