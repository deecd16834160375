"""The data stage on Ray Data: ingest, then chunk and pack. Ray is started only when there is work, and left afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from typing import Any

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.prepare.ray_data import ray_workers
from ray_jobs.shared_storage import refuse_unshared
from tasks.ingest import documents_stage as ingest
from tasks.pack import shards_stage as pack
from tasks.pack.settings import check_settings
from tasks.work import Workers, WorkersFor


def determining(params: PipelineParams) -> dict[str, Any]:
    """The parameters that decide what the job `prepare` makes."""
    return ingest.determining(params) | pack.determining(params)


def make_documents(params: PipelineParams, storage: Storage, progress: ProgressCallback) -> Artifact:
    """Make, or find, the `documents` artifact. UserError for a corpus that cannot be trained on."""
    with _ray_when_needed(params, storage) as workers_for:
        return ingest.run(params, storage, workers_for, progress)


def make_shards(
    params: PipelineParams, storage: Storage, progress: ProgressCallback, documents: Artifact | None = None
) -> tuple[Artifact, Artifact]:
    """Make, or find, the artifacts `documents` (if none are given) and `shards`.

    UserError for a corpus that cannot be trained on, and for settings that cannot be packed.
    """
    check_settings(params)
    with _ray_when_needed(params, storage) as workers_for:
        documents = documents or ingest.run(params, storage, workers_for, progress)
        return documents, pack.run(params, storage, documents, workers_for, progress)


@contextmanager
def _ray_when_needed(params: PipelineParams, storage: Storage) -> Iterator[WorkersFor]:
    with ExitStack() as stack:

        @cache
        def workers() -> Workers:
            connected_workers = stack.enter_context(ray_workers(params.ray))
            refuse_unshared(params, storage, parts_only=True)
            return connected_workers

        yield lambda num_bytes: nullcontext(workers())
