"""Chunking and packing as one Prefect task: chunks go straight into rows."""

from collections.abc import Iterator
from functools import partial

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.prepare.workers import workers_for
from ray_jobs.submission import is_submitted, run_job
from tasks.observed import Observer, observed, task_run_name
from tasks.pack import stage
from tasks.pack.page import packing_page, packing_pictures
from tasks.page import Shown


@task(name="prepare", task_run_name=task_run_name, persist_result=False)
def prepare(params: PipelineParams, documents: Artifact) -> Artifact:
    """Cut documents into chunks and pack them into Arrow shards."""

    def make(observer: Observer) -> Artifact:
        if is_submitted(params.ray):
            return run_job("prepare", params, observer.tell, kind="shards", inputs={"documents": documents})
        return stage.run(params, Storage(params.storage), documents, partial(workers_for, params), observer.tell)

    def shown(artifact: Artifact) -> Iterator[Shown]:
        yield packing_page(artifact, params)
        yield from packing_pictures(artifact)

    return observed("prepare", params, make, shown)
