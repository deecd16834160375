"""The stages of a run, each in this process, or as a job on the cluster that `ray.address` submits to.

Prefect's tasks and `ropeway run --no-prefect` call the same functions. `tell` gets the stage's progress; `ray_jobs.reached` notes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from pydantic import SecretStr

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.advise import advice_stage
from ray_jobs.evaluate import evaluation_stage
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.prepare.job import determining
from ray_jobs.prepare.ray_data import workers_for
from ray_jobs.reached import REACHED
from ray_jobs.search_rope import search_stage
from ray_jobs.submit.submission import is_submitted, run_job
from tasks.ingest import documents_stage
from tasks.pack import shards_stage
from tasks.publish import release_stage
from tasks.publish.checks import Check
from tasks.publish.destinations.delivery import Delivery


def ingest(params: PipelineParams, tell: ProgressCallback) -> Artifact:
    """Read the corpus, split it by work, and write the documents."""
    with REACHED.during("reading the corpus", tell) as noted:
        if is_submitted(params.ray):
            return run_job("prepare", params, noted, kind="documents", determining=determining)
        return documents_stage.run(params, Storage(params.storage), partial(workers_for, params), noted)


def prepare(params: PipelineParams, documents: Artifact, tell: ProgressCallback) -> Artifact:
    """Cut documents into chunks and pack them into Arrow shards."""
    with REACHED.during("packing the shards", tell) as noted:
        if is_submitted(params.ray):
            given = {"documents": documents}
            return run_job("prepare", params, noted, kind="shards", determining=determining, inputs=given)
        return shards_stage.run(params, Storage(params.storage), documents, partial(workers_for, params), noted)


def search_rope(params: PipelineParams, documents: Artifact, tell: ProgressCallback, start: Artifact | None = None) -> Artifact:
    """Search RoPE factors on training documents, or continue an interrupted search; on the model of the checkpoint `start`."""
    with REACHED.during("searching RoPE factors", tell) as noted:
        if is_submitted(params.ray):
            determines, given = search_stage.determining, {"documents": documents} | _start(start)
            return run_job("search_rope", params, noted, kind="rope_searches", determining=determines, inputs=given)
        return search_stage.run(params, Storage(params.storage), documents, noted, start)


def finetune(params: PipelineParams, shards: Artifact, tell: ProgressCallback, start: Artifact | None = None) -> Artifact:
    """Train the adapter on Ray in one training stage, from the checkpoint `start` if there is one; or continue an interrupted run."""
    REACHED.num_steps = params.training.steps
    with REACHED.during("training", tell) as noted:
        if is_submitted(params.ray):
            determines, given = checkpoint_stage.determining, {"shards": shards} | _start(start)
            return run_job("finetune", params, noted, kind="checkpoints", determining=determines, inputs=given)
        return checkpoint_stage.run(params, Storage(params.storage), shards, noted, start)


def _start(start: Artifact | None) -> dict[str, Artifact]:
    return {"checkpoints": start} if start else {}


def evaluate(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None, tell: ProgressCallback) -> Artifact:
    """Measure all models on the same held-out documents and prompts."""
    with REACHED.during("evaluating", tell) as noted:
        if is_submitted(params.ray):
            determines = evaluation_stage.determining
            given = {"documents": documents} | ({"checkpoints": checkpoint} if checkpoint else {})
            return run_job("evaluate", params, noted, kind="evaluations", determining=determines, inputs=given)
        return evaluation_stage.run(params, Storage(params.storage), documents, checkpoint, noted)


def advise(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None, tell: ProgressCallback) -> Artifact:
    """Ask the same questions in several ways, or continue an interrupted run."""
    with REACHED.during("asking questions", tell) as noted:
        if is_submitted(params.ray):
            determines = advice_stage.determining
            given = {"documents": documents} | ({"checkpoints": checkpoint} if checkpoint else {})
            return run_job("advise", params, noted, kind="advices", determining=determines, inputs=given)
        return advice_stage.run(params, Storage(params.storage), documents, checkpoint, noted)


def publish(
    params: PipelineParams,
    artifacts: Mapping[str, Artifact],
    tell: ProgressCallback,
    seen: Callable[[Check | Delivery], None] = lambda _: None,
    token: SecretStr | None = None,
    searches: Mapping[str, Artifact] | None = None,
) -> Artifact:
    """Write the release, verify it, and serve it where it is better. `artifacts`: those of the four stages, and the advice where there
    is one, by name. `searches`: those of RoPE factors, by name."""
    with REACHED.during("publishing", tell) as noted:
        storage = Storage(params.storage)
        return release_stage.run(params, storage, **artifacts, progress=noted, seen=seen, token=token, searches=searches)
