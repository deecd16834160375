"""Ingest as a Prefect task."""

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact
from ray_jobs import stages
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.corpus import corpus_page


@task(name="ingest", task_run_name=task_run_name, persist_result=False)
def ingest(params: PipelineParams) -> Artifact:
    """Read the corpus, split it by work, and write the documents."""

    def make(observer: Observer) -> Artifact:
        return stages.ingest(params, observer.tell)

    return observed("ingest", params, make, lambda artifact: [corpus_page(artifact, params.corpus)])
