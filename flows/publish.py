"""Publish the release, running whatever it still needs."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.pipeline_run import run_pipeline, run_title


@flow(name="publish", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def publish(params: PipelineParams) -> str:
    """Publish the release, running whatever it still needs. Returns the artifact's folder."""
    return run_pipeline(params, "published")
