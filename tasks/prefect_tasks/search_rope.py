"""The search for RoPE factors as a Prefect task."""

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact
from ray_jobs import stages
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.rope_search import search_pages


@task(name="search-rope", task_run_name=task_run_name, persist_result=False)
def search_rope(params: PipelineParams, documents: Artifact, start: Artifact | None = None) -> Artifact:
    """Search RoPE factors on training documents, or continue an interrupted search; on the model of the checkpoint `start`."""

    def make(observer: Observer) -> Artifact:
        return stages.search_rope(params, documents, observer.tell, start)

    return observed("search-rope", params, make, search_pages)
