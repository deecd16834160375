"""Ingest, chunk and pack a corpus into Arrow shards."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.chain import Chain


@flow(name="prepare", flow_run_name="prepare-{params.run_name}", validate_parameters=True, persist_result=False)
def prepare(params: PipelineParams) -> str:
    """Ingest, chunk and pack a corpus into Arrow shards. Returns the artifact's folder."""
    return Chain(params).prepared().location
