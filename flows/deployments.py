"""The deployments, read from prefect.yaml: `prefect deploy --all` and `ropeway serve` register the same ones."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

DEFINITIONS = Path(__file__).parent / "prefect.yaml"


def definitions() -> list[dict[str, Any]]:
    """The entries of `deployments` in prefect.yaml, in its order."""
    entries: list[dict[str, Any]] = yaml.safe_load(DEFINITIONS.read_text(encoding="utf-8"))["deployments"]
    return entries


def served(definition: dict[str, Any]) -> RunnerDeployment:
    """One definition as Prefect serves it: without its work pool, which only workers need."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.schedules import Schedule
    from prefect.types.entrypoint import EntrypointType

    module, name = definition["entrypoint"].rsplit(".", 1)
    deployment: RunnerDeployment = getattr(import_module(module), name).to_deployment(
        name=definition["name"],
        description=definition["description"].strip(),
        tags=definition["tags"],
        parameters=definition["parameters"],
        schedules=[Schedule(**schedule) for schedule in definition.get("schedules", ())],
        concurrency_limit=ConcurrencyLimitConfig(**definition["concurrency_limit"]),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return deployment


def serve_all() -> None:
    """Register all deployments with the server at PREFECT_API_URL and run what is triggered, until interrupted."""
    from prefect import serve

    serve(*map(served, definitions()))
