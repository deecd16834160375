"""The flows: the whole chain, and one up to each stage; and what they share.

The flows take their parameters unvalidated: Prefect's own validation would end a run with pydantic's page of errors.
This file has no `from __future__ import annotations`: with it, served runs fail with "not fully defined".
"""

from collections.abc import Mapping
from typing import Any, Literal

from prefect import flow

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams

Goal = Literal["prepared", "finetuned", "evaluated", "published"]


def run_title() -> str:
    """Name of the current flow run: run name, base model, RoPE method, length; the flow, unless it is the whole chain.

    It also names runs whose parameters are wrong. Scheduled runs have the same parameters every night, so they get their time.
    """
    from prefect.runtime import flow_run

    from tasks.prefect_tasks.run_labels import base_name

    given = flow_run.parameters.get("params")
    given = given.model_dump(mode="json") if isinstance(given, PipelineParams) else _mapping(given)
    model = _mapping(given.get("model"))
    what = (base_name(str(model.get("base") or "")), model.get("rope_method", "auto"), model.get("target_length"))
    title = f"{given.get('run_name', 'unnamed')} ({', '.join(str(part) for part in what if part)})"
    if flow_run.flow_name != "extend-context":
        title = f"{flow_run.flow_name} {title}"
    if "auto-scheduled" in flow_run.tags:
        title += f" {flow_run.scheduled_start_time:%Y-%m-%d %H:%M} UTC"
    return title


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@flow(name="extend-context", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def extend_context(params: PipelineParams) -> str:
    """Ingest, chunk, pack, fine-tune, evaluate and publish. Returns the release's folder; stages already done are reused."""
    return run_pipeline(params, "published")


@flow(name="prepare", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def prepare(params: PipelineParams) -> str:
    """Ingest, chunk and pack a corpus into Arrow shards. Returns the artifact's folder."""
    return run_pipeline(params, "prepared")


@flow(name="finetune", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def finetune(params: PipelineParams) -> str:
    """Fine-tune the base for the longer context, preparing the shards first where they are missing. Returns the artifact's folder."""
    return run_pipeline(params, "finetuned")


@flow(name="evaluate", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def evaluate(params: PipelineParams) -> str:
    """Measure base, scaling only and fine-tuned model, training first where that is missing. Returns the artifact's folder."""
    return run_pipeline(params, "evaluated")


@flow(name="publish", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def publish(params: PipelineParams) -> str:
    """Publish the release, running whatever it still needs. Returns the artifact's folder."""
    return run_pipeline(params, "published")


def run_pipeline(params: PipelineParams | Mapping[str, Any], goal: Goal) -> Any:
    """Check `params`, then run the chain up to `goal`.

    Returns Prefect's state of the run: completed with the artifact's location, or failed with a UserError, its sentence
    being the state's message. Whatever else is raised passes through.
    """
    from prefect.states import Completed, Failed

    from flows.terminal import shorten_user_errors

    shorten_user_errors(keep_notes=True)
    try:
        checked = _checked(params)
        from flows.chain import Chain  # loads the stages; wrong parameters are refused without them

        location = getattr(Chain(checked), goal)().location
    except UserError as error:
        return Failed(message=str(error), data=error)
    return Completed(message=f"{goal}: {location}", data=location)


def _checked(params: PipelineParams | Mapping[str, Any]) -> PipelineParams:
    """The parameters, if everything that can be known before the first stage is right; else UserError."""
    from data_schemas.params_reading import validate_params
    from flows.check_inputs import check_inputs

    if not isinstance(params, PipelineParams):
        params = validate_params(dict(params), origin="the run's parameters")
    check_inputs(params)
    if params.publish.token_secret:  # a block that is missing is not for the last stage to find out
        from tasks.prefect_tasks.publish import hub_token

        hub_token(params.publish)
    tag_run(params)
    return params


def tag_run(params: PipelineParams) -> None:
    """Tag the current flow run with model, chosen RoPE method, length and release, beside the deployment's own tags."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    from tasks.prefect_tasks.run_labels import run_tags

    tags = {*run_tags(params), f"release:{params.release_name}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=sorted({*flow_run.tags, *tags}))
