"""Chunking and packing as one Prefect task: chunks go straight into rows."""

from functools import partial

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.prepare.workers import workers_for
from tasks.observed import run_log, show_result
from tasks.pack import stage


@task(name="prepare", persist_result=False)
def prepare(params: PipelineParams, documents: Artifact) -> Artifact:
    """Cut documents into chunks and pack them into Arrow shards."""
    artifact = stage.run(params, Storage(params.storage), documents, partial(workers_for, params), run_log())
    show_result(artifact)
    return artifact
