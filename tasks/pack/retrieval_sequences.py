"""The retrieval artifact of one packing: its parts, its sequences, its rows in the plan, and its lines in the ledger."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_schemas.ledger import Ledger
from data_schemas.params import RetrievalParams
from data_schemas.parts import Parts
from data_schemas.storage import Artifact
from tasks.pack.accounting import with_made
from tasks.pack.counted import Counted, add
from tasks.pack.packer import PackingPlan
from tasks.pack.retrieved import SOURCE, TakeRetrieval, ranks_of, retrieval_report, with_retrieval
from tasks.retrieval.retrieval_stage import retrieval_names
from tasks.work import Workers, run_units


class RetrievalSequences:
    """Nothing at all without an artifact. `labels` are the sources in ledger and card, `names` the artifact's parts.

    Args:
        first_part: the number of its first part; those of the corpus have the numbers below.
        num_sources: of the corpus; the families' sources have the numbers from there on.
        num_special: BOS and EOS around a document.
    """

    def __init__(
        self, artifact: Artifact | None, params: RetrievalParams, first_part: int, num_sources: int, num_special: int
    ) -> None:
        self._params, self._first_part, self._num_special = params, first_part, num_special
        self.place: Parts | None = artifact.as_parts() if artifact else None
        self.names = retrieval_names(artifact) if artifact else []
        families = params.trained_families if artifact else ()
        self._sources = {str(family): num_sources + number for number, family in enumerate(families)}
        self.labels = tuple(SOURCE.format(family) for family in families)
        self._not_made: dict[str, dict[str, int]] = artifact.manifest.summary["not_made"] if artifact else {}
        self._documents: list[tuple[str, int, int]] = []
        self._per_part: list[int] = []

    @property
    def num_documents(self) -> int:
        """How many `take` has found."""
        return len(self._documents)

    def take(self, parts: Parts, workers: Workers, counted: Counted) -> None:
        """Write the documents' sequences among the parts, after those of the corpus, and count them."""
        if self.place is None:
            return
        job = TakeRetrieval(self.place, parts, self._sources, self._num_special)
        for taken in run_units(workers, job, list(enumerate(self.names, self._first_part)), parts, "retrieved"):
            add(counted, taken["groups"])
            self._documents += [(family, answers, questions) for family, answers, questions in taken["documents"]]
            self._per_part.append(len(taken["documents"]))

    def mixed(self, plan: PackingPlan, lengths: np.ndarray, seed: int) -> tuple[PackingPlan, dict[str, Any] | None]:
        """The plan with rows of the documents, whose `lengths` are int [num_documents], and what manifest and card say of them."""
        if self.place is None:
            return plan, None
        share = self._params.share
        mixed, taken = with_retrieval(plan, lengths, ranks_of(self._per_part), share, seed)
        return mixed, retrieval_report(self._documents, taken, share, mixed, self._not_made)

    def in_ledger(self, ingested: Ledger, sources: tuple[str, ...], counted: Counted) -> Ledger:
        """`ingested` with what was made; `sources` are all labels, in the order of `counted`."""
        if self.place is None:
            return ingested
        return with_made(ingested, dict(zip(self._sources, self.labels, strict=True)), sources, counted, self._not_made)

    @property
    def parts(self) -> range:
        """The numbers of its parts."""
        return range(self._first_part, self._first_part + len(self.names))
