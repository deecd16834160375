"""Publish the release, running whatever it still needs."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.chain import Chain


@flow(name="publish", flow_run_name="publish-{params.run_name}", validate_parameters=True, persist_result=False)
def publish(params: PipelineParams) -> str:
    """Publish the release, running whatever it still needs. Returns the artifact's folder."""
    return Chain(params).published().location
