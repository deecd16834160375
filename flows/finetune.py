"""Fine-tune the base for the longer context, preparing the shards first where they are missing."""

from prefect import flow

from data_schemas.params import PipelineParams
from flows.pipeline_run import run_pipeline, run_title


@flow(name="finetune", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def finetune(params: PipelineParams) -> str:
    """Fine-tune the base for the longer context, preparing the shards first where they are missing. Returns the artifact's folder."""
    return run_pipeline(params, "finetuned")
