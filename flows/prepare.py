"""Ingest, chunk and pack a corpus into Arrow shards."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.pipeline_run import run_pipeline, run_title


@flow(name="prepare", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def prepare(params: PipelineParams) -> str:
    """Ingest, chunk and pack a corpus into Arrow shards. Returns the artifact's folder."""
    return run_pipeline(params, "prepared")
