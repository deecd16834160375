"""A run with nothing to do: everything it asks for is found by its digest, before Prefect, Ray or torch is loaded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from data_schemas.errors import UserError
from data_schemas.manifest import stage_digest
from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressEvent
from data_schemas.storage import Artifact, Storage
from flows.chain import Chain
from ray_jobs.advise import advice_key
from ray_jobs.evaluate import evaluation_key
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.search_rope import search_key
from tasks.ingest import documents_stage
from tasks.pack import shards_stage
from tasks.publish import release_stage
from tasks.publish.event import is_announced
from tasks.publish.releases import current_digest
from tasks.publish.standing import standing


class _NotFinishedError(Exception):
    """Some stage has work to do."""


def find_finished(params: PipelineParams, goal: str, announces: bool) -> str | None:
    """The location of what the run makes, if equal runs made all of it; else None. `goal`: a method of `Chain`.

    Nothing is made, checked or moved. The corpus is listed and hashed, as in every run. With `announces`, a release whose event was not
    sent is not finished.
    """
    chain = Chain(params, _FindingStages(_FindingStorage(params.storage), announces), records=False)
    try:
        location: str = getattr(chain, goal)().location
    except (_NotFinishedError, UserError):  # the run itself says what is wrong
        return None
    chain.keep_record()
    return location


class _FindingStorage(Storage):
    """Finds artifacts and makes none."""

    def build(self, kind: str, **identity: Any) -> Artifact:
        del identity["make"]
        return _required(self.find(kind, stage_digest(**identity)))


class _FindingReleases(_FindingStorage):
    """Finds the release only if it is the current version, or is not to be served, so that nothing is moved."""

    def __init__(self, params: PipelineParams, announces: bool) -> None:
        super().__init__(params.storage)
        self._params, self._announces = params, announces

    def build(self, kind: str, **identity: Any) -> Artifact:
        found = super().build(kind, **identity)
        if current_digest(self, self._params.release_name) == found.digest:
            is_told = not self._announces or is_announced(self, self._params.release_name, found.digest)
            return _required(found if is_told else None)
        is_held_back = self.remote is None and standing(self._params, found.digest, found.path).failed
        return _required(found if is_held_back else None)


class _FindingStages:
    """See `flows.chain.Stages`. Each finds its artifact, or raises `_NotFinishedError`."""

    def __init__(self, storage: _FindingStorage, announces: bool) -> None:
        self._storage, self._announces = storage, announces

    def ingest(self, params: PipelineParams) -> Artifact:
        return documents_stage.run(params, self._storage, _no_workers, _unheard)

    def prepare(self, params: PipelineParams, documents: Artifact) -> Artifact:
        return shards_stage.run(params, self._storage, documents, _no_workers, _unheard)

    def search_rope(self, params: PipelineParams, documents: Artifact, start: Artifact | None = None) -> Artifact:
        return _required(search_key.find(params, self._storage, documents, start))

    def refuse_unsearchable(self, params: PipelineParams, documents: Artifact) -> None:
        """Nothing: a finished search was possible."""

    def refuse_unmeasurable(self, params: PipelineParams, documents: Artifact, shards: Artifact) -> None:
        """Nothing: a finished evaluation was possible."""

    def refuse_unadvisable(self, params: PipelineParams, documents: Artifact, shards: Artifact) -> None:
        """Nothing: a finished advice was possible."""

    def finetune(self, params: PipelineParams, shards: Artifact, start: Artifact | None = None) -> Artifact:
        return _required(checkpoint_stage.find(params, self._storage, shards, start))

    def evaluate(self, params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
        return _required(evaluation_key.find(params, self._storage, documents, checkpoint))

    def advise(self, params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
        return _required(advice_key.find(params, self._storage, documents, checkpoint))

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
        """Not finished where destinations have to be compared with the release."""
        if params.publish.destinations or params.publish.token_secret:
            raise _NotFinishedError
        releases = _FindingReleases(params, self._announces)
        given = documents, shards, checkpoint, evaluation
        return release_stage.run(params, releases, *given, _unheard, advice=advice, searches=searches)

    def tell(self, text: str) -> None:
        """Nothing: the run itself says it, if there is one."""

    @contextmanager
    def around(self, params: PipelineParams, needs_gpu: bool) -> Iterator[None]:
        yield


def _required(found: Artifact | None) -> Artifact:
    if found is None:
        raise _NotFinishedError
    return found


def _no_workers(num_bytes: int) -> NoReturn:
    raise _NotFinishedError


def _unheard(event: ProgressEvent) -> None:
    """A run that makes nothing has no progress."""
