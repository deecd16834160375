"""Checks, from the artifacts themselves, that no evaluated document was trained on."""

from __future__ import annotations

from collections.abc import Set

import pyarrow.parquet as pq

from data_schemas.earlier_stages import shards_trained_on
from data_schemas.errors import UserError
from data_schemas.manifest import FileEntry
from data_schemas.storage import Artifact, Storage

CHECKED, NOT_CHECKED = "checked", "not checked"


def refuse_trained_on(doc_ids: Set[str], checkpoint: Artifact, storage: Storage) -> str:
    """UserError if a training row of the checkpoint's shards, of any training stage, contains a chunk of one of `doc_ids`.

    Returns `CHECKED`, or `NOT_CHECKED` with a colon and the reason.
    """
    digests = shards_trained_on(checkpoint.manifest)
    if not digests:
        return f"{NOT_CHECKED}: the checkpoint does not say which shards it was trained on"
    documents: set[str] = set()
    for digest in digests:
        shards = storage.find("shards", digest)
        if shards is None:
            return f"{NOT_CHECKED}: the shards that the checkpoint was trained on ({digest[:12]}) are no longer in the storage"
        documents |= training_documents(shards)
    if trained_on := sorted(doc_ids & documents):
        raise UserError(
            f"{len(trained_on)} of the {len(doc_ids)} documents to be evaluated were trained on (such as {trained_on[0]}): give a "
            "checkpoint trained from the same `documents`, or run finetune again."
        )
    return CHECKED


def training_documents(shards: Artifact) -> set[str]:
    """Ids of the documents with a chunk in the training split of a `shards` artifact."""
    parts = shards.as_parts()
    found: set[str] = set()
    for entry in filter(_holds_chunks, shards.manifest.files):
        with parts.reading(entry.path) as path:
            table = pq.read_table(path, columns=["doc_id"], filters=[("split", "==", "train")])
        found.update(table["doc_id"].unique().to_pylist())
    return found


def _holds_chunks(entry: FileEntry) -> bool:
    return entry.path.startswith("chunks-") and entry.path.endswith(".parquet")
