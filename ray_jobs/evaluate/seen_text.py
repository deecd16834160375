"""How much of each held-out document was in training, from the shards that were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_schemas.earlier_stages import shards_trained_on
from data_schemas.report_seen import SeenDocument, SeenText
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import SEEN_HELDOUT_FILE

_WORST = 10


@dataclass(frozen=True)
class Seen:
    """`left_out`: ids of the held-out documents that are not evaluated; `section`: for the report, None where not measured."""

    left_out: frozenset[str] = frozenset()
    section: SeenText | None = None


NOT_MEASURED = Seen()


def seen_in_training(checkpoint: Artifact | None, storage: Storage, max_share: float) -> Seen:
    """What the shards of a checkpoint say; NOT_MEASURED without a checkpoint or where shards are gone.

    Of several training stages, a document is left out if one of them saw too much of it; the figures are of the one that saw most.
    """
    found = [storage.find("shards", digest) for digest in shards_trained_on(checkpoint.manifest)] if checkpoint else []
    seen = [seen_in(shards, max_share) if shards else NOT_MEASURED for shards in found]
    if not seen or NOT_MEASURED in seen:
        return NOT_MEASURED
    most = max(seen, key=lambda one: one.section.share if one.section else 0.0)
    return Seen(frozenset().union(*(one.left_out for one in seen)), most.section)


def seen_in(shards: Artifact, max_share: float) -> Seen:
    """What a `shards` artifact says; NOT_MEASURED for one of an older version."""
    if not any(entry.path == SEEN_HELDOUT_FILE for entry in shards.manifest.files):
        return NOT_MEASURED
    with shards.as_parts().reading(SEEN_HELDOUT_FILE) as path:
        table = pq.read_table(path)
    seen = table.filter(pc.field("num_seen") > 0).sort_by([("share", "descending"), ("doc_id", "ascending")])
    left_out = seen.filter(pc.field("share") > max_share)["doc_id"].to_pylist()
    total = pc.sum(table["num_ngrams"]).as_py() or 0
    section = SeenText(
        num_documents=len(table),
        num_seen=len(seen),
        share=(pc.sum(seen["num_seen"]).as_py() or 0) / total if total else 0.0,
        num_left_out=len(left_out),
        worst=tuple(
            SeenDocument(doc_id=row["doc_id"], name=PurePosixPath(row["source_uri"]).name, share=row["share"])
            for row in seen.slice(0, _WORST).to_pylist()
        ),
    )
    return Seen(frozenset(left_out), section)
