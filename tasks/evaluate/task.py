"""Evaluation as a Prefect task."""

import json

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate import stage
from tasks.evaluate.report_tables import markdown_tables
from tasks.observed import run_log, show_markdown, show_plot, show_result


@task(name="evaluate", persist_result=False)
def evaluate(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
    """Compare base, scaling only and fine-tuned on the same held-out documents and prompts."""
    artifact = stage.run(params, Storage(params.storage), documents, checkpoint, run_log())
    show_result(artifact)
    show_markdown("evaluation-tables", markdown_tables(json.loads((artifact.path / "report.json").read_text())))
    for plot in sorted(artifact.path.glob("*.png")):
        show_plot(f"evaluation-{plot.stem}", plot.read_bytes())
    return artifact
