"""The automations of `ropeway automate`: mark silent runs as crashed, send notifications, run a deployment after a release.

Each automation has a fixed name: setting it up again updates it and never makes a second one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from data_schemas.errors import UserError
from flows.terminal import refuse_unreachable_server
from tasks.publish.event import RELEASED

SILENT = "ropeway: a silent run has crashed"
FAILED = "ropeway: tell of failed runs"
PUBLISHED = "ropeway: tell of releases"
HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "Paused", "Suspended", "AwaitingRetry", "Scheduled", "Late")
_OURS: dict[str, Any] = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.ropeway"}


def set_up(notify: str | None, then: str | None) -> None:
    """Set up all automations and print their names. UserError without a server, or if a block or deployment is missing.

    Args:
        notify: TYPE/NAME of the notification block for `ensure_notifications`; None: no notifications.
        then: FLOW/NAME of the deployment for `ensure_chain`; None: nothing runs after a release.
    """
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise UserError("Automations need a Prefect server: set PREFECT_API_URL, such as to http://127.0.0.1:4200/api.")
    refuse_unreachable_server()
    names = ensure_automations()
    if notify:
        names += ensure_notifications(notify)
    if then:
        names += ensure_chain(then)
    for name in names:
        print(name)


def ensure_automations(silence_s: float = 300) -> list[str]:
    """Set up the automation that marks a run as Crashed after `silence_s` seconds without a heartbeat; returns its name.

    It applies to runs with the tag `ropeway`, which all deployments have. Under `ropeway serve` a run sends a heartbeat every
    30 seconds (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, at least 30), so a server that is down for a minute does no harm.
    """
    from prefect.automations import AutomationCore
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    minutes = f"{silence_s / 60:g} minutes" if silence_s >= 120 else f"{silence_s:g} seconds"
    trigger = EventTrigger(
        after={HEARTBEAT, "prefect.flow-run.Running"},  # sent by the server: a run may die before its first heartbeat
        expect={HEARTBEAT} | {f"prefect.flow-run.{state}" for state in _ENDS},
        match={"prefect.resource.id": "prefect.flow-run.*"},  # type: ignore[arg-type]  # a mapping becomes the specification
        match_related=_OURS,  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=silence_s),
    )
    crashed = ChangeFlowRunState(
        state=StateType.CRASHED,
        name="Crashed",
        message=f"The run has given no sign of life for {minutes}: run it again, and it continues where it stopped.",
    )
    return [_ensure(AutomationCore(name=SILENT, description="Zombie runs", trigger=trigger, actions=[crashed]))]


def ensure_notifications(block: str) -> list[str]:
    """Set up notifications of failures and of releases through the block TYPE/NAME, such as `slack-webhook/ml-team`.

    Returns the names of the automations. UserError if there is no such block.
    """
    from prefect.automations import AutomationCore
    from prefect.events.actions import SendNotification

    document = _block_id(block)
    failure = SendNotification(
        block_document_id=document,
        subject="Ropeway: {{ flow_run.name }} {{ flow_run.state.name }}",
        body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
    release = SendNotification(
        block_document_id=document,
        subject="Ropeway: {{ event.payload.name }} is published",
        body="{{ event.payload.name }} {{ event.payload.digest }}\n{{ event.payload.location }}",
    )
    failures = _at_once({f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}, match_related=_OURS)
    return [
        _ensure(AutomationCore(name=FAILED, trigger=failures, actions=[failure])),
        _ensure(AutomationCore(name=PUBLISHED, trigger=_at_once({RELEASED}), actions=[release])),
    ]


def ensure_chain(deployment: str) -> list[str]:
    """Set up that the deployment FLOW/NAME runs after every release; returns the automation's name.

    Its flow gets those of `name`, `digest` and `location` that it has as parameters. UserError if there is no such deployment.
    """
    from prefect.automations import AutomationCore
    from prefect.client.orchestration import get_client
    from prefect.events.actions import RunDeployment
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except (ObjectNotFound, ValueError) as error:
            raise UserError(
                f"There is no deployment {deployment!r}: give FLOW/NAME, as `prefect deployment ls` shows it."
            ) from error
    taken = (found.parameter_openapi_schema or {}).get("properties", {})
    values = {
        name: {"__prefect_kind": "jinja", "template": f"{{{{ event.payload.{name} }}}}"}
        for name in ("name", "digest", "location")
        if name in taken
    }
    action = RunDeployment(source="selected", deployment_id=found.id, parameters=values)
    name = f"ropeway: a release starts {deployment}"
    return [_ensure(AutomationCore(name=name, trigger=_at_once({RELEASED}), actions=[action]))]


def _at_once(events: set[str], **matching: Any) -> Any:
    """The trigger that fires at each of these events."""
    from prefect.events.schemas.automations import EventTrigger, Posture

    return EventTrigger(expect=events, posture=Posture.Reactive, threshold=1, within=timedelta(0), **matching)


def _ensure(automation: Any) -> str:
    """Create the automation, or update the one of this name; returns the name."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(automation.name)
        if known:
            client.update_automation(known[0].id, automation)
        else:
            client.create_automation(automation)
    return str(automation.name)


def _block_id(block: str) -> Any:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    kind, _, name = block.partition("/")
    with get_client(sync_client=True) as client:
        try:
            return client.read_block_document_by_name(name=name, block_type_slug=kind).id
        except (ObjectNotFound, ValueError) as error:
            raise UserError(f"Prefect has no block {block!r}: create one in the UI and give it as TYPE/NAME.") from error
