"""All training stages of a run, one after the other, in this process: for the jobs. `flows.chain` runs them one by one."""

from __future__ import annotations

from collections.abc import Mapping

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback, message
from data_schemas.storage import Artifact, Storage
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.prepare.job import make_documents, make_shards
from ray_jobs.search_rope.before_training import refuse_unsearchable, with_found_factors

Given = Mapping[str, Artifact]  # by kind


def refuse_given(params: PipelineParams, given: Given) -> None:
    """UserError for shards or a checkpoint to go on from that are given to several stages at once."""
    if params.training.stages and given.keys() & {"shards", "checkpoints"}:
        raise UserError(
            "--given shards and checkpoints are for one training stage: leave them out, or leave out training.stages."
        )


def rows_of_stages(params: PipelineParams, storage: Storage, progress: ProgressCallback, documents: Artifact) -> list[Artifact]:
    """The `shards` of each stage, made or found. The longest first, since a corpus may be too short for it alone."""
    stages, shards = params.by_stage(), []
    for number in reversed(range(len(stages))):
        with params.naming_stage(number):
            shards.append(make_shards(stages[number], storage, progress, documents)[1])
    return shards[::-1]


def train_in_stages(
    params: PipelineParams, storage: Storage, progress: ProgressCallback, given: Given
) -> tuple[PipelineParams, Artifact]:
    """`params` with the RoPE that a search of the last stage chose, and that stage's checkpoint.

    All rows are packed before the first stage is trained. `given`: artifacts by kind, `shards` and `checkpoints` (to go on from) only
    without `training.stages`.
    """
    documents = given.get("documents")
    if "shards" in given:
        shards, start = [given["shards"]], given.get("checkpoints")
    else:
        documents = documents or make_documents(params, storage, progress)
        shards = rows_of_stages(params, storage, progress, documents)
        start = _before_the_last(params, storage, progress, documents, shards) or given.get("checkpoints")
    params = with_found_factors(params, storage, progress, documents, start)
    last = params.by_stage()[-1]
    return params, checkpoint_stage.run(last, storage, shards[-1], progress, start)


def with_factors_of_last(
    params: PipelineParams, storage: Storage, progress: ProgressCallback, documents: Artifact, checkpoint: Artifact | None
) -> PipelineParams:
    """`params` with the RoPE that a search of the last stage chose. For that the stages before it are trained, unless `checkpoint`, that of
    the last one, says from which it started. UserError if that one is gone: a search on the base would find another RoPE."""
    if not params.searches_rope:
        return params
    start = None
    if checkpoint is not None and (digest := checkpoint.manifest.parents.get("checkpoint")):
        start = storage.find(checkpoint_stage.KIND, digest)
        if start is None:
            raise UserError(
                f"The checkpoint that {checkpoint.digest[:12]} goes on from ({digest[:12]}) is no longer in the storage: give "
                "model.rope_factors_file, or run finetune again."
            )
    elif checkpoint is None and params.training.stages:
        shards = rows_of_stages(params, storage, progress, documents)
        start = _before_the_last(params, storage, progress, documents, shards)
    return with_found_factors(params, storage, progress, documents, start)


def _before_the_last(
    params: PipelineParams, storage: Storage, progress: ProgressCallback, documents: Artifact, shards: list[Artifact]
) -> Artifact | None:
    """The checkpoint of the stage before the last one; None if there is only one."""
    refuse_unsearchable(params, documents)
    start = None
    for stage, packed in zip(params.by_stage()[:-1], shards, strict=False):
        planned = with_found_factors(stage, storage, progress, documents, start)
        found, told = checkpoint_stage.find_earlier(planned, storage, packed, start)
        if told:
            progress(message(told))
        start = found or checkpoint_stage.run(planned, storage, packed, progress, start)
    return start
