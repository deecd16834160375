"""Ingest as a Prefect task."""

from functools import partial

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.prepare.workers import workers_for
from tasks.ingest import stage
from tasks.observed import run_log, show_result


@task(name="ingest", persist_result=False)
def ingest(params: PipelineParams) -> Artifact:
    """Read the corpus, split it by work, and write the documents."""
    artifact = stage.run(params, Storage(params.storage), partial(workers_for, params), run_log())
    show_result(artifact)
    return artifact
