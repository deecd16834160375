"""Evaluation as a Prefect task."""

from functools import partial

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate import evaluation_stage as stage
from ray_jobs.submit.submission import is_submitted, run_job
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.elements import Share
from tasks.prefect_tasks.pages.evaluation import KEY, evaluation_shown
from tasks.prefect_tasks.periodic import Periodic
from tasks.prefect_tasks.run_labels import extension_of

_SECONDS_BETWEEN_UPDATES = 5.0  # each is a request to the server


@task(name="evaluate", task_run_name=task_run_name, persist_result=False)
def evaluate(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
    """Measure all models on the same held-out documents and prompts."""
    title = f"Evaluation of {extension_of(params.model)}"

    def make(observer: Observer) -> Artifact:
        if is_submitted(params.ray):
            inputs = {"documents": documents} | ({"checkpoints": checkpoint} if checkpoint else {})
            return run_job("evaluate", params, observer.tell, kind="evaluations", inputs=inputs)
        done = _ShareShown(observer, f"{title}: share of its work that is done")
        with Periodic(done.update, _SECONDS_BETWEEN_UPDATES):
            return stage.run(params, Storage(params.storage), documents, checkpoint, observer.tell, done)

    return observed("evaluate", params, make, partial(evaluation_shown, title=title))


class _ShareShown:
    """Shows the share that is measured, now and then, from a thread of its own: measuring does not wait for the server."""

    def __init__(self, observer: Observer, title: str) -> None:
        self._observer, self._title = observer, title
        self._share, self._shown = 0.0, 0.0

    def __call__(self, share: float) -> None:
        self._share = share

    def update(self) -> None:
        if (share := self._share) > self._shown:
            self._shown = share
            self._observer.show(Share(f"{KEY}-progress", share, self._title))
