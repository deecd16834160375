"""The flows: the whole chain, and one that ends after each stage.

Prefect does not validate the parameters; `run_pipeline` does, so that a wrong one is one sentence and not a page of errors.
This file has no `from __future__ import annotations`: with it, served runs fail with "not fully defined".
"""

from collections.abc import Mapping
from typing import Any, Literal

from prefect import flow

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams

Goal = Literal["prepared", "searched", "finetuned", "evaluated", "advised", "published"]


def run_title() -> str:
    """Name of the current flow run: run name, base model, RoPE method, length. Flows of one stage add the flow's name.

    Works for wrong parameters too. Scheduled runs add their time, because their parameters are the same every night.
    """
    from prefect.runtime import flow_run

    from flows.flow_run_end import note_started
    from tasks.prefect_tasks.run_labels import base_name

    note_started(flow_run.id)
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
    """Read, chunk and pack a corpus, fine-tune, evaluate and publish. Finished stages are reused. Returns the release's folder."""
    return run_pipeline(params, "published")


@flow(name="prepare", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def prepare(params: PipelineParams) -> str:
    """Read, chunk and pack a corpus into Arrow shards. Returns the artifact's folder."""
    return run_pipeline(params, "prepared")


@flow(name="search-rope", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def search_rope(params: PipelineParams) -> str:
    """Search RoPE factors for LongRoPE. Reads the corpus first if needed. Returns the artifact's folder."""
    return run_pipeline(params, "searched")


@flow(name="finetune", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def finetune(params: PipelineParams) -> str:
    """Fine-tune the base for the longer context. Prepares the shards first if they are missing. Returns the artifact's folder."""
    return run_pipeline(params, "finetuned")


@flow(name="evaluate", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def evaluate(params: PipelineParams) -> str:
    """Measure base, scaling only and fine-tuned model. Trains first if needed. Returns the artifact's folder."""
    return run_pipeline(params, "evaluated")


@flow(name="advise", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def advise(params: PipelineParams) -> str:
    """Extend or chunk? Ask the same questions in several ways. Trains first if needed. Returns the artifact's folder."""
    return run_pipeline(params, "advised")


@flow(name="publish", flow_run_name=run_title, validate_parameters=False, persist_result=False)
def publish(params: PipelineParams) -> str:
    """Publish the release. Runs every missing stage first. Returns the artifact's folder."""
    return run_pipeline(params, "published")


def run_pipeline(params: PipelineParams | Mapping[str, Any], goal: Goal) -> Any:
    """Check `params`, then run the chain up to `goal`.

    Returns the run's Prefect state: Completed with the artifact's location, Failed with the sentence of a UserError, or Cancelled
    after Ctrl-C. Other exceptions pass through.
    """
    from prefect.states import Cancelled, Completed, Failed

    from flows.terminal import shorten_user_errors
    from ray_jobs.reached import REACHED

    shorten_user_errors(keep_notes=True)
    try:
        checked = _checked(params, goal)
        if goal == "searched":
            from tasks.rope_search.plans import as_search, space_of

            checked = as_search(checked)
            space_of(checked)  # refuses what cannot be searched before the corpus is read
        from flows.chain import Chain  # loads the stages; wrong parameters are refused without them
        from flows.prefect_stages import PrefectStages

        artifact = Chain(checked, PrefectStages()).reach(goal)
        told = _told(checked, artifact) if goal == "published" else goal
    except UserError as error:
        return Failed(message=str(error), data=error)
    except KeyboardInterrupt:
        return Cancelled(message=REACHED.describe())
    return Completed(message=f"{told}: {artifact.location}", data=artifact.location)


def _told(params: PipelineParams, release: Any) -> str:
    """Whether the release is served, for the run's state."""
    from tasks.publish.standing import standing

    return "published" if standing(params, release.digest, release.path).is_current else "published, but not served"


def _checked(params: PipelineParams | Mapping[str, Any], goal: Goal) -> PipelineParams:
    """The parameters, validated and checked before the first stage. UserError says what is wrong."""
    from data_schemas.params_reading import validate_params
    from flows.check_inputs import check_inputs

    if not isinstance(params, PipelineParams):  # from a deployment; a command has checked its parameters before it gets here
        params = validate_params(dict(params), origin="the run's parameters")
        check_inputs(params, trains=goal != "prepared", advises=goal == "advised" or params.advise.after_evaluation)
    if params.publish.token_secret:  # a missing block is found now, not in the last stage
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
