"""Fine-tune the base for the longer context, preparing the shards first where they are missing."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.chain import Chain


@flow(name="finetune", flow_run_name="finetune-{params.run_name}", validate_parameters=True, persist_result=False)
def finetune(params: PipelineParams) -> str:
    """Fine-tune the base for the longer context, preparing the shards first where they are missing. Returns the artifact's folder."""
    return Chain(params).finetuned().location
