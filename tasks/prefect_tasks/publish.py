"""Publishing as a Prefect task."""

from collections.abc import Iterator, Mapping
from typing import Any

from prefect import task
from prefect.blocks.system import Secret
from prefect.events import emit_event
from pydantic import SecretStr

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, PublishParams
from data_schemas.storage import Artifact, Storage
from ray_jobs import stages
from tasks.prefect_tasks.observer import Observer, observed, task_run_name
from tasks.prefect_tasks.pages.elements import Shown
from tasks.prefect_tasks.pages.release import release_pages
from tasks.publish.checks import Check
from tasks.publish.destinations.delivery import Delivery
from tasks.publish.event import announce


@task(name="publish", task_run_name=task_run_name, persist_result=False)
def publish(
    params: PipelineParams,
    documents: Artifact,
    shards: Artifact,
    checkpoint: Artifact,
    evaluation: Artifact,
    advice: Artifact | None = None,
    searches: Mapping[str, Artifact] | None = None,
) -> Artifact:
    """Write the release, verify it, and point `current` at it."""
    seen: list[Check | Delivery] = []

    def make(observer: Observer) -> Artifact:
        artifacts = {"documents": documents, "shards": shards, "checkpoint": checkpoint, "evaluation": evaluation}
        artifacts |= {"advice": advice} if advice else {}
        return stages.publish(params, artifacts, observer.tell, seen.append, hub_token(params.publish), searches)

    def shown(artifact: Artifact) -> Iterator[Shown]:
        checks = [found for found in seen if isinstance(found, Check)]
        yield from release_pages(artifact, params, checks, [found for found in seen if isinstance(found, Delivery)])

    artifact = observed("publish", params, make, shown)
    announce(Storage(params.storage), params.release_name, artifact, emit_event)
    return artifact


def hub_token(publish: PublishParams) -> SecretStr | None:
    """The token in the Prefect Secret block `publish.token_secret`; None if no block is set. UserError if it holds no text."""
    if publish.token_secret is None:
        return None
    how = f"create it with the hub's token as its value, or correct `publish.token_secret` ({publish.token_secret!r})"
    try:
        block: Any = Secret.load(publish.token_secret, _sync=True)  # type: ignore[call-arg]  # added by a decorator
        value = block.get()
    except ValueError as error:
        raise UserError(f"Prefect has no Secret block of that name: {how}.") from error
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"The Prefect Secret block does not hold text: {how}.")
    return SecretStr(value)
