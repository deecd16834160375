"""Chunking and packing as one Prefect task."""

from collections.abc import Iterator

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact
from ray_jobs import stages
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.elements import Shown
from tasks.prefect_tasks.pages.packing import packing_page, packing_pictures


@task(name="prepare", task_run_name=task_run_name, persist_result=False)
def prepare(params: PipelineParams, documents: Artifact) -> Artifact:
    """Cut documents into chunks and pack them into Arrow shards."""

    def make(observer: Observer) -> Artifact:
        return stages.prepare(params, documents, observer.tell)

    def shown(artifact: Artifact) -> Iterator[Shown]:
        yield packing_page(artifact, params)
        yield from packing_pictures(artifact)

    return observed("prepare", params, make, shown)
