"""Measure base, scaling only and fine-tuned model, training first where that is missing."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.pipeline_run import run_pipeline, run_title


@flow(name="evaluate", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def evaluate(params: PipelineParams) -> str:
    """Measure base, scaling only and fine-tuned model, training first where that is missing. Returns the artifact's folder."""
    return run_pipeline(params, "evaluated")
