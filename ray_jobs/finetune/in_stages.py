"""All training stages of a run, one after the other, in this process: for the job `finetune`. The chain runs them one by one."""

from __future__ import annotations

from collections.abc import Mapping

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.prepare.job import make_documents, make_shards
from ray_jobs.search_rope.before_training import with_found_factors


def train_in_stages(
    params: PipelineParams, storage: Storage, progress: ProgressCallback, given: Mapping[str, Artifact]
) -> Artifact:
    """The checkpoint of the last stage. All shards are made before the first stage is trained.

    `given`: artifacts by kind; `shards`, and `checkpoints` to go on from, only without `training.stages`.
    """
    documents, shards, start = given.get("documents"), [], given.get("checkpoints")
    stages = params.by_stage()
    if "shards" in given:
        shards = [given["shards"]]
    else:
        documents = documents or make_documents(params, storage, progress)
        # The longest first, since a corpus may be too short for it alone.
        shards = [make_shards(stage, storage, progress, documents)[1] for stage in reversed(stages)][::-1]
    for stage, packed in zip(stages, shards, strict=True):
        planned = with_found_factors(stage, storage, progress, documents, start)
        start = checkpoint_stage.run(planned, storage, packed, progress, start)
    assert start is not None
    return start
