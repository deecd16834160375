"""Which training documents choose between lists of factors, and which decide: from different works, so that they are independent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from tasks.evaluate.heldout import HeldOutDocument, read_works, select_by_work

FEWEST = 4  # clusters: two to choose and two to decide


@dataclass(frozen=True)
class TwoSides:
    """Documents on each side. `cluster_of`: by document, what counts as one: its work, or itself where there are fewer than four works.

    `of_works`: whether it is works.
    """

    choosing: list[HeldOutDocument]
    deciding: list[HeldOutDocument]
    cluster_of: dict[str, str]
    of_works: bool


def two_sides(documents: Path, tokenizer: Any, length: int, counts: tuple[int, int], what: str, remedy: str) -> TwoSides:
    """Training documents of at least `length` tokens.

    Documents of one work are one cluster; each is one for itself where the documents of this length are of fewer than four works. Each
    work gives one document before any gives a second, and more than four are asked for, so those that are chosen show whether there are
    four works (but see `select_by_work` for the one that waits).

    Args:
        documents: folder of the `documents` artifact.
        counts: how many documents are wanted to choose, and to decide. There may be fewer.
        what, remedy: what needs them and what a user can do, for the error's sentence.

    Raises:
        UserError: there are fewer than four.
    """
    works = read_works(documents)
    long = select_by_work(documents, works, tokenizer, min_tokens=length, num_documents=sum(counts), split="train")
    if len(long) < FEWEST:
        found = {0: "No training document has", 1: "Only 1 training document has"}.get(
            len(long), f"Only {len(long)} training documents have"
        )
        raise UserError(f"{found} at least {length} tokens, and {what} needs {FEWEST}: {remedy}.")
    cluster_of = {document.doc_id: works[document.doc_id] for document in long}
    of_works = len(set(cluster_of.values())) >= FEWEST
    if not of_works:
        cluster_of = {document.doc_id: document.doc_id for document in long}
    choosing, deciding = _parted(long, cluster_of, counts[0] / sum(counts))
    return TwoSides(choosing, deciding, cluster_of, of_works)


def _parted(
    documents: Sequence[HeldOutDocument], cluster_of: Mapping[str, str], share: float
) -> tuple[list[HeldOutDocument], list[HeldOutDocument]]:
    """The documents of about `share` of the clusters, and the others. No cluster is in both, and each has at least two."""
    clusters = list(dict.fromkeys(cluster_of[document.doc_id] for document in documents))
    nearest = math.ceil(share * len(clusters) - 0.5)
    first = set(clusters[: min(max(2, nearest), len(clusters) - 2)])
    sides: tuple[list[HeldOutDocument], list[HeldOutDocument]] = ([], [])
    for document in documents:
        sides[cluster_of[document.doc_id] not in first].append(document)
    return sides
