"""Fine-tuning as a Prefect task. It is called directly, not submitted, because only the main thread gets a cancellation."""

from functools import partial

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressEvent
from data_schemas.storage import Artifact
from ray_jobs import stages
from tasks.prefect_tasks.live import LiveTraining
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.training import finished_training
from tasks.prefect_tasks.run_labels import extension_of


@task(name="finetune", task_run_name=task_run_name, persist_result=False)
def finetune(params: PipelineParams, shards: Artifact, start: Artifact | None = None) -> Artifact:
    """Train the adapter on Ray, from the checkpoint `start` if there is one; or continue an interrupted run."""
    title = f"Fine-tuning {extension_of(params.model)}"

    def make(observer: Observer) -> Artifact:
        with LiveTraining(title, params.training.steps, observer.show) as live:

            def tell(event: ProgressEvent) -> None:
                observer.tell(event)
                live.hear(event)

            return stages.finetune(params, shards, tell, start)

    return observed("finetune", params, make, partial(finished_training, title=title))
