"""Ingest as a Prefect task."""

from functools import partial

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.prepare.job import determining
from ray_jobs.prepare.ray_data import workers_for
from ray_jobs.submit.submission import is_submitted, run_job
from tasks.ingest import documents_stage as stage
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.corpus import corpus_page


@task(name="ingest", task_run_name=task_run_name, persist_result=False)
def ingest(params: PipelineParams) -> Artifact:
    """Read the corpus, split it by work, and write the documents."""

    def make(observer: Observer) -> Artifact:
        if is_submitted(params.ray):
            return run_job("prepare", params, observer.tell, kind="documents", determining=determining)
        return stage.run(params, Storage(params.storage), partial(workers_for, params), observer.tell)

    return observed("ingest", params, make, lambda artifact: [corpus_page(artifact, params.corpus)])
