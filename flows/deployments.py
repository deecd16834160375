"""The deployments that `ropeway serve` registers: the chain, and each stage alone."""

from typing import Any

from prefect import serve

from flows.evaluate import evaluate
from flows.extend_context import extend_context
from flows.finetune import finetune
from flows.prepare import prepare
from flows.publish import publish


def serve_all() -> None:
    """Register all flows with the server at PREFECT_API_URL and run what is triggered, until interrupted."""
    flows = (extend_context, prepare, finetune, evaluate, publish)
    deployments: list[Any] = [
        flow.to_deployment(name="local", tags=["ropeway"], description=flow.description) for flow in flows
    ]
    serve(*deployments)
