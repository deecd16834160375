"""Which training documents are removed, so that less than `heldout_share` of a held-out document remains in training.

A training document is removed in three cases: `heldout_share` of its own n-grams occur in held-out documents; it contains that
share of one held-out document, as the collected works of an author contain a play; or it would bring a held-out document to
that share, together with passages of the training documents before it. Boilerplate does not count.

For the third case a passage has at least 50 n-grams (62 words) or `heldout_share` of the held-out document. Shorter ones are
quotations. Removal for prompts is decided with the hits, in `hits`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tasks.ingest.decontamination.boilerplate import Boilerplate, SharedNgrams, SharedOfUnits, pair_counts
from tasks.ingest.decontamination.evaluated_index import EvaluatedIndex

_PASSAGE_NGRAMS = 50


def choose_removed(
    index: EvaluatedIndex, boilerplate: Boilerplate, heldout_share: float, units: SharedOfUnits
) -> Iterator[np.ndarray]:
    """bool [documents] of each unit: those to remove.

    One pass over the units in order, so the result does not depend on the workers. Memory: a byte an n-gram.
    """
    chooser = _Chooser(index, boilerplate, heldout_share)
    for shared in units():
        yield chooser.removed_of(shared)


class _Chooser:
    def __init__(self, index: EvaluatedIndex, boilerplate: Boilerplate, heldout_share: float) -> None:
        self._index, self._boilerplate = index, boilerplate
        self._share = heldout_share
        self._sizes = boilerplate.sizes
        self._limits = np.maximum(heldout_share * self._sizes, 1)  # n-grams of each held-out document that are too many
        self._is_seen = np.zeros(len(index.heldout), bool)
        self._num_seen = np.zeros(len(self._sizes), np.int64)

    def removed_of(self, shared: SharedNgrams) -> np.ndarray:
        is_heldout = shared.places < len(self._index.heldout)
        places, documents = shared.places[is_heldout], shared.documents[is_heldout]
        owners, which = self._boilerplate.counted(self._index, places)
        num_shared = np.bincount(documents, minlength=len(shared.own))
        num_counted = np.bincount(documents[np.unique(which)], minlength=len(shared.own))
        removed = num_counted >= np.maximum(self._share * (shared.own - (num_shared - num_counted)), 1)
        document, owner, count = pair_counts(documents[which], owners)
        removed[document[count >= self._limits[owner]]] = True
        has_passage = np.zeros(len(shared.own), bool)
        has_passage[document[count >= np.minimum(_PASSAGE_NGRAMS, self._limits[owner])]] = True
        documents_of_pairs = documents[which]
        for one in np.flatnonzero(has_passage & ~removed):
            mine = slice(*np.searchsorted(documents_of_pairs, [one, one + 1]))
            removed[one] = not self._admit(owners[mine], places[which[mine]])
        return removed

    def _admit(self, owners: np.ndarray, places: np.ndarray) -> bool:
        """Whether a document may stay; what it shows of held-out documents then counts as seen."""
        is_new = ~self._is_seen[places]
        of, num_new = np.unique(owners[is_new], return_counts=True)
        if (self._num_seen[of] + num_new >= self._limits[of]).any():
            return False
        self._num_seen[of] += num_new
        self._is_seen[places] = True
        return True
