"""Chunking and packing as one Prefect task."""

from collections.abc import Iterator
from functools import partial

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.prepare.job import determining
from ray_jobs.prepare.ray_data import workers_for
from ray_jobs.submit.submission import is_submitted, run_job
from tasks.pack import shards_stage as stage
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.elements import Shown
from tasks.prefect_tasks.pages.packing import packing_page, packing_pictures


@task(name="prepare", task_run_name=task_run_name, persist_result=False)
def prepare(params: PipelineParams, documents: Artifact) -> Artifact:
    """Cut documents into chunks and pack them into Arrow shards."""

    def make(observer: Observer) -> Artifact:
        if is_submitted(params.ray):
            given = {"documents": documents}
            return run_job("prepare", params, observer.tell, kind="shards", determining=determining, inputs=given)
        return stage.run(params, Storage(params.storage), documents, partial(workers_for, params), observer.tell)

    def shown(artifact: Artifact) -> Iterator[Shown]:
        yield packing_page(artifact, params)
        yield from packing_pictures(artifact)

    return observed("prepare", params, make, shown)
