"""Evaluation as a Prefect task."""

import time
from typing import Any

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate import stage
from tasks.evaluate.report_tables import markdown_tables
from tasks.observed import run_log, show_markdown, show_plot, show_result

_SECONDS_BETWEEN_UPDATES = 5.0  # each is a request to the server


@task(name="evaluate", persist_result=False)
def evaluate(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
    """Measure all models on the same held-out documents and prompts."""
    artifact = stage.run(params, Storage(params.storage), documents, checkpoint, run_log(), _ProgressArtifact())
    show_result(artifact)
    show_markdown("evaluation-tables", markdown_tables(stage.load_report(artifact)))
    for plot in sorted(artifact.path.glob("*.png")):
        show_plot(f"evaluation-{plot.stem.replace('_', '-')}", plot.read_bytes())
    return artifact


class _ProgressArtifact:
    """Shows the share that is measured as a progress artifact, made when the first share is told."""

    def __init__(self) -> None:
        self._id: Any = None
        self._last = 0.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if share < 1.0 and now - self._last < _SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
        percent = round(100 * share, 1)
        if self._id is None:
            self._id = create_progress_artifact(
                progress=percent, key="evaluation-progress", description="Share of the evaluation's work that is done"
            )
        else:
            update_progress_artifact(self._id, progress=percent)
