"""The part of an evaluation's report that says how much of the held-out text was in training."""

from __future__ import annotations

from data_schemas.record import Record


class SeenDocument(Record):
    """A held-out document: `share` of its 13-grams of words occurs in the packed training rows. `name` is its file's."""

    doc_id: str
    name: str
    share: float


class SeenText(Record):
    """As measured after packing, over all held-out documents of the shards that were trained on.

    num_documents  held-out documents
    num_seen       those of which anything occurs in training
    share          of all their 13-grams
    num_left_out   documents above `evaluation.max_seen_share`, which are not evaluated
    worst          the highest shares, at most ten
    """

    num_documents: int
    num_seen: int
    share: float
    num_left_out: int
    worst: tuple[SeenDocument, ...]
