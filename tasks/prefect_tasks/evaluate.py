"""Evaluation as a Prefect task."""

from functools import partial

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressEvent
from data_schemas.storage import Artifact
from ray_jobs import stages
from tasks.prefect_tasks.live import LiveEvaluation
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.evaluation import evaluation_shown
from tasks.prefect_tasks.run_labels import extension_of


@task(name="evaluate", task_run_name=task_run_name, persist_result=False)
def evaluate(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
    """Measure all models on the same held-out documents and prompts."""
    title = f"Evaluation of {extension_of(params.model)}"

    def make(observer: Observer) -> Artifact:
        with LiveEvaluation(title, observer.show) as live:

            def tell(event: ProgressEvent) -> None:
                observer.tell(event)
                live.hear(event)

            return stages.evaluate(params, documents, checkpoint, tell)

    return observed("evaluate", params, make, partial(evaluation_shown, title=title))
