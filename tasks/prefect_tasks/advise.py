"""The measured advice as a Prefect task."""

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressEvent
from data_schemas.storage import Artifact
from ray_jobs import stages
from tasks.prefect_tasks.live import LiveEvaluation
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.advice import KEY, advice_shown
from tasks.prefect_tasks.run_labels import extension_of


@task(name="advise", task_run_name=task_run_name, persist_result=False)
def advise(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
    """Ask the same questions with whole documents, chunks and summaries."""

    def make(observer: Observer) -> Artifact:
        with LiveEvaluation(f"Advice on {extension_of(params.model)}", observer.show, key=KEY) as live:

            def tell(event: ProgressEvent) -> None:
                observer.tell(event)
                live.hear(event)

            return stages.advise(params, documents, checkpoint, tell)

    return observed("advise", params, make, advice_shown)
