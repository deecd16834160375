"""The deployments in prefect.yaml, which `prefect deploy --all` and `ropeway serve` both register."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_schemas.mapping_text import parse_yaml

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.deployments.runner import RunnerDeployment

DEFINITIONS = Path(__file__).parent / "prefect.yaml"


def definitions() -> list[dict[str, Any]]:
    """The entries of `deployments` in prefect.yaml, in its order."""
    entries: list[dict[str, Any]] = parse_yaml(DEFINITIONS.read_text(encoding="utf-8"), str(DEFINITIONS))["deployments"]
    return entries


def served(definition: dict[str, Any], switched: dict[str, bool] | None = None) -> RunnerDeployment:
    """The deployment of one definition, for `serve`: without the work pool, which only workers need.

    `switched`: for each schedule by its slug, whether it is active; overrides the definition.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.schedules import Schedule
    from prefect.types.entrypoint import EntrypointType

    schedules = [entry | {"active": (switched or {}).get(entry["slug"], entry["active"])} for entry in _schedules(definition)]
    deployment = _flow(definition).to_deployment(
        name=definition["name"],
        description=definition["description"],
        tags=definition["tags"],
        parameters=definition["parameters"],
        schedules=[Schedule(**entry) for entry in schedules],
        concurrency_limit=ConcurrencyLimitConfig(**definition["concurrency_limit"]),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert not isinstance(deployment, Coroutine)  # as it is where an event loop runs
    return deployment


def serve_all() -> None:
    """Register all deployments with the server at PREFECT_API_URL, and run what is triggered until interrupted."""
    from prefect import serve

    from flows.automation import ensure_automations
    from flows.limits import KEEPS_LEASES, forgets_leases
    from flows.terminal import refuse_unreachable_server

    refuse_unreachable_server()
    ensure_automations()
    if forgets_leases():
        print(
            f"ropeway: restarting this Prefect server would end running flows: start it with {KEEPS_LEASES}.",
            file=sys.stderr,
        )
    serve(*(served(definition, _switched(definition)) for definition in definitions()))


def _switched(definition: dict[str, Any]) -> dict[str, bool]:
    """Which schedules are active on the server, so that serving again keeps what was switched on or off there."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            known = client.read_deployment_by_name(f"{_flow(definition).name}/{definition['name']}")
        except ObjectNotFound:
            return {}
    return {schedule.slug: schedule.active for schedule in known.schedules if schedule.slug}


def _flow(definition: dict[str, Any]) -> Flow[..., Any]:
    module, name = definition["entrypoint"].rsplit(".", 1)
    flow: Flow[..., Any] = getattr(import_module(module), name)
    return flow


def _schedules(definition: dict[str, Any]) -> list[dict[str, Any]]:
    schedules: list[dict[str, Any]] = definition.get("schedules", [])
    return schedules
