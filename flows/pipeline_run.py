"""What all flows share: a run's name, its first second, and one sentence as its last word.

The flows take their parameters unvalidated: Prefect's own validation would end a run with pydantic's page of errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams

Goal = Literal["prepared", "finetuned", "evaluated", "published"]


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
    from flows.preflight import check_inputs
    from ray_jobs.params import validate_params

    if not isinstance(params, PipelineParams):
        params = validate_params(dict(params), origin="the run's parameters")
    check_inputs(params)
    if params.publish.token_secret:  # a block that is missing is not for the last stage to find out
        from tasks.publish.task import hub_token

        hub_token(params.publish)
    tag_run(params)
    return params


def run_title() -> str:
    """Name of the current flow run: run name, base model, RoPE method, length; the flow, unless it is the whole chain.

    It also names runs whose parameters are wrong. Scheduled runs have the same parameters every night, so they get their time.
    """
    from prefect.runtime import flow_run

    from tasks.run_labels import base_name

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


def tag_run(params: PipelineParams) -> None:
    """Tag the current flow run with model, chosen RoPE method, length and release, beside the deployment's own tags."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    from tasks.run_labels import run_tags

    tags = {*run_tags(params), f"release:{params.release_name}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=sorted({*flow_run.tags, *tags}))
