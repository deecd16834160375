"""Measure base, scaling only and fine-tuned model, training first where that is missing."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.chain import Chain


@flow(name="evaluate", flow_run_name="evaluate-{params.run_name}", validate_parameters=True, persist_result=False)
def evaluate(params: PipelineParams) -> str:
    """Measure base, scaling only and fine-tuned model, training first where that is missing. Returns the artifact's folder."""
    return Chain(params).evaluated().location
