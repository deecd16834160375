"""The whole chain: documents in, an extended, evaluated and published model out."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.pipeline_run import run_pipeline, run_title


@flow(name="extend-context", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def extend_context(params: PipelineParams) -> str:
    """Ingest, chunk, pack, fine-tune, evaluate and publish. Returns the release's folder; stages already done are reused."""
    return run_pipeline(params, "published")
