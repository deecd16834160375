"""Running consumers on a release before it is published, and the record of it that the model card prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from data_schemas.consumers import ConsumerId, RunnableId
from data_schemas.errors import UserError
from data_schemas.progress import ProgressCallback, message
from tasks.publish.portable import write_json
from tasks.publish.serving import next_tokens
from tasks.publish.serving.runners import RUNNERS, environment_for
from tasks.publish.serving.served import answers_of, why_declined

FILE = "verification/served.json"


class Ran(BaseModel):
    """A program that ran on the release; `largest_difference` in nats, from the log-probabilities recorded before saving."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    consumer: ConsumerId
    program: str
    version: str
    context_length: int
    largest_difference: float


def run_consumers(directory: Path, names: Sequence[RunnableId], progress: ProgressCallback = lambda _: None) -> None:
    """Run each consumer on the model in `directory`, and write FILE if there are any.

    Raises UserError if one of them is not for this release, cannot be installed, or computes something else.
    """
    ran = [_run(directory, name, progress) for name in dict.fromkeys(names)]
    if ran:
        write_json(directory / FILE, {"schema_version": 1, "consumers": [one.model_dump(mode="json") for one in ran]})


def read_ran(directory: Path) -> dict[str, Ran]:
    """What ran on the release before it was published, by consumer id."""
    if not (directory / FILE).is_file():
        return {}
    content = json.loads((directory / FILE).read_text(encoding="utf-8"))
    return {one.consumer: one for one in map(Ran.model_validate, content["consumers"])}


def _run(directory: Path, name: RunnableId, progress: ProgressCallback) -> Ran:
    if reason := why_declined(directory, name):
        raise _refused(name, reason)
    python = environment_for(RUNNERS[name], progress=progress)
    progress(message(f"publish: running {name}"))
    answer = answers_of(RUNNERS[name], python, {directory: next_tokens.read(directory)})[directory]
    if answer.note or answer.problems or answer.context_length is None or answer.worst is None:
        raise _refused(name, "; ".join(filter(None, [answer.note, *answer.problems])))
    return Ran(
        consumer=name,
        program=answer.program,
        version=answer.version,
        context_length=answer.context_length,
        largest_difference=float(f"{answer.worst:.2g}"),
    )


def _refused(name: str, reason: str) -> UserError:
    return UserError(
        f"The release was not published, because {name} does not serve it as it was trained ({reason}): choose another "
        "model.rope_method, or leave it out of publish.verify_with."
    )
