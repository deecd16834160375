"""The stages without Prefect: `ropeway run --no-prefect`. No server, no flow run, and no queue for the GPUs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.progress import message, print_progress
from data_schemas.storage import Artifact, Storage
from ray_jobs import stages
from ray_jobs.advise.advice_stage import refuse_unadvisable
from ray_jobs.evaluate.evaluation_stage import refuse_unmeasurable
from ray_jobs.search_rope.before_training import refuse_unsearchable

QUIET = {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}


class PlainStages:
    """See `flows.chain.Stages`. Progress goes to standard error."""

    def ingest(self, params: PipelineParams) -> Artifact:
        return stages.ingest(params, print_progress)

    def prepare(self, params: PipelineParams, documents: Artifact) -> Artifact:
        return stages.prepare(params, documents, print_progress)

    def search_rope(self, params: PipelineParams, documents: Artifact, start: Artifact | None = None) -> Artifact:
        return stages.search_rope(params, documents, print_progress, start)

    def refuse_unsearchable(self, params: PipelineParams, documents: Artifact) -> None:
        refuse_unsearchable(params, documents)

    def refuse_unmeasurable(self, params: PipelineParams, documents: Artifact, shards: Artifact) -> None:
        refuse_unmeasurable(params, Storage(params.storage), documents, shards)

    def refuse_unadvisable(self, params: PipelineParams, documents: Artifact, shards: Artifact) -> None:
        refuse_unadvisable(params, Storage(params.storage), documents, shards)

    def finetune(self, params: PipelineParams, shards: Artifact, start: Artifact | None = None) -> Artifact:
        return stages.finetune(params, shards, print_progress, start)

    def evaluate(self, params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
        return stages.evaluate(params, documents, checkpoint, print_progress)

    def advise(self, params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
        return stages.advise(params, documents, checkpoint, print_progress)

    def publish(
        self,
        params: PipelineParams,
        documents: Artifact,
        shards: Artifact,
        checkpoint: Artifact,
        evaluation: Artifact,
        advice: Artifact | None,
        searches: Mapping[str, Artifact] | None = None,
    ) -> Artifact:
        artifacts = {"documents": documents, "shards": shards, "checkpoint": checkpoint, "evaluation": evaluation}
        artifacts |= {"advice": advice} if advice else {}
        return stages.publish(params, artifacts, print_progress, searches=searches)

    def tell(self, text: str) -> None:
        print_progress(message(text))

    @contextmanager
    def around(self, params: PipelineParams, needs_gpu: bool) -> Iterator[None]:
        yield


def run_plainly(params: PipelineParams, goal: str) -> str:
    """Run the chain up to `goal` in this process. Returns the artifact's location. UserError for `publish.token_secret`."""
    from flows.chain import Chain

    if params.publish.token_secret:
        raise UserError("publish.token_secret names a block of Prefect: leave out --no-prefect, or set HF_TOKEN instead.")
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    location: str = Chain(params, PlainStages()).reach(goal).location
    return location
