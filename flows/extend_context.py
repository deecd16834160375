"""The whole chain: documents in, an extended, evaluated and published model out."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.chain import Chain


@flow(name="extend-context", flow_run_name="{params.run_name}", validate_parameters=True, persist_result=False)
def extend_context(params: PipelineParams) -> str:
    """Ingest, chunk, pack, fine-tune, evaluate and publish. Returns the release's folder; stages already done are reused."""
    return Chain(params).published().location
