"""Boilerplate told from copies, by how much of the held-out document it covers.

An n-gram of a held-out document is *common* if more than `boilerplate_documents` training documents contain it. Where the
common n-grams are less than `boilerplate_share` of the held-out document, they are boilerplate, such as a licence, and do not
count. Where they are more, the document itself has been copied, and they count like all others. Common n-grams that more than
`boilerplate_documents` held-out documents have are boilerplate in each of them; so an n-gram is compared with few documents.

A held-out document that is a licence itself would then remove every training document with that licence. So copies of common
text remove no more than `max_removed_share` of the training text. Held-out documents beyond that are *given up*: their common
n-grams do not count, and what remains in training is measured after packing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_schemas.params import DecontaminationParams
from tasks.ingest.decontamination.evaluated_index import EvaluatedIndex

_MOST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class SharedNgrams:
    """What the documents of one unit share with evaluated text, as pairs in the order of the documents.

    documents  int64 [n]: the document's place in the unit
    places     int64 [n]: the n-gram's place in the index
    own        int64 [documents]: different n-grams of each document; 0 for documents that are not compared
    num_bytes  int64 [documents]
    """

    documents: np.ndarray
    places: np.ndarray
    own: np.ndarray
    num_bytes: np.ndarray


SharedOfUnits = Callable[[], Iterator[SharedNgrams]]  # the units in order, from the start at each call


@dataclass(frozen=True)
class Boilerplate:
    """Which shared n-grams count.

    num_with    uint16 [n-grams]: training documents that contain each, at most 65,535
    is_common   bool [n-grams]
    is_copyable bool [n-grams of held-out text]: common, and in so few held-out documents that it can be a copy of them
    num_common  int64 [held-out documents]: common n-grams of each
    sizes       int64 [held-out documents]: n-grams of each that count
    is_copied   bool [held-out documents]: common n-grams count
    is_given_up bool [held-out documents]: they would, if that did not remove too much of the training text
    is_alive    bool [held-out documents]: false for one that was removed as a duplicate, of which nothing counts
    """

    num_with: np.ndarray
    is_common: np.ndarray
    is_copyable: np.ndarray
    sizes: np.ndarray
    num_common: np.ndarray
    is_copied: np.ndarray
    is_given_up: np.ndarray
    is_alive: np.ndarray

    def counted(self, index: EvaluatedIndex, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The held-out documents for which n-grams of held-out text count.

        Args:
            places: int64 [n], below len(index.heldout).

        Returns:
            (uint32 [m] held-out documents, int64 [m] the number in `places` of the n-gram that counts for each).
        """
        may_count = np.flatnonzero(~self.is_common[places] | self.is_copyable[places])
        owners, which = index.heldout.owners_of(places[may_count])
        which = may_count[which]
        counts = self.is_alive[owners] & (~self.is_common[places][which] | self.is_copied[owners])
        return owners[counts], which[counts]

    def ignored_prompts(self, index: EvaluatedIndex) -> list[str]:
        """Names of the prompts that cannot remove anything because all their n-grams are common."""
        is_common = self.is_common[len(index.heldout) :]
        num_left = np.bincount(index.prompt_owners[~is_common], minlength=len(index.prompt_names))
        num_owned = np.bincount(index.prompt_owners, minlength=len(index.prompt_names))
        return [index.prompt_names[i] for i in np.flatnonzero((num_owned > 0) & (num_left == 0))]


def find_boilerplate(
    index: EvaluatedIndex, params: DecontaminationParams, is_alive: np.ndarray, units: SharedOfUnits, training_bytes: int
) -> Boilerplate:
    """Count in how many training documents each n-gram occurs, and decide which of them count.

    Memory: 3 bytes an n-gram, and 24 bytes for each copy of a held-out document that is mostly common.
    """
    num_with = np.zeros(len(index), np.uint16)
    for shared in units():
        place, num_documents = np.unique(shared.places, return_counts=True)
        num_with[place] = np.minimum(num_with[place] + num_documents, _MOST)
    is_common = num_with > min(params.boilerplate_documents, _MOST - 1)
    is_common[len(index.heldout) :] = num_with[len(index.heldout) :] > min(params.common_documents, _MOST - 1)
    sizes = index.heldout.sizes
    is_copyable = is_common[: len(index.heldout)] & (index.heldout.num_owners(is_alive) <= params.boilerplate_documents)
    num_common = index.heldout.count_by_document(is_common[: len(index.heldout)])
    num_copyable = index.heldout.count_by_document(is_copyable)
    is_mostly_common = is_alive & (num_copyable > 0) & (num_copyable >= params.boilerplate_share * sizes)
    is_given_up = np.zeros(len(sizes), bool)
    if is_mostly_common.any():
        copies = _copies(index, is_mostly_common, is_copyable, params.heldout_share, units)
        is_given_up[_too_costly(*copies, int(params.max_removed_share * training_bytes))] = True
    is_copied = is_mostly_common & ~is_given_up
    counted = sizes - num_common + np.where(is_copied, num_copyable, 0)
    return Boilerplate(num_with, is_common, is_copyable, counted, num_common, is_copied, is_given_up, is_alive)


def pair_counts(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, count) of the different pairs of two integer arrays, in ascending order."""
    width = int(second.max(initial=0)) + 1
    keys, counts = np.unique(first.astype(np.int64) * width + second, return_counts=True)
    return keys // width, keys % width, counts


def _copies(
    index: EvaluatedIndex, is_mostly_common: np.ndarray, is_copyable: np.ndarray, share: float, units: SharedOfUnits
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(held-out document, training document, its bytes) of each copy, int64 [n]: of at least `share` of the held-out one."""
    found: list[np.ndarray] = [np.empty((3, 0), np.int64)]
    first = 0
    for shared in units():
        is_heldout = shared.places < len(index.heldout)
        places, documents = shared.places[is_heldout], shared.documents[is_heldout]
        is_wanted = is_copyable[places]
        owners, which = index.heldout.owners_of(places[is_wanted])
        is_wanted_owner = is_mostly_common[owners]
        document, owner, count = pair_counts(documents[is_wanted][which[is_wanted_owner]], owners[is_wanted_owner])
        is_copy = count >= share * index.heldout.sizes[owner]
        document, owner = document[is_copy], owner[is_copy]
        found.append(np.stack([owner, document + first, shared.num_bytes[document]]))
        first += len(shared.own)
    owners, documents, num_bytes = np.concatenate(found, axis=1)
    return owners, documents, num_bytes


def _too_costly(owners: np.ndarray, documents: np.ndarray, num_bytes: np.ndarray, limit: int) -> Sequence[int]:
    """Held-out documents that are given up: copies are removed while they hold no more than `limit` bytes in all.

    Held-out documents with the fewest bytes of copies go first.
    """
    total = np.zeros(int(owners.max(initial=-1)) + 1, np.int64)
    np.add.at(total, owners, num_bytes)
    by_owner = np.argsort(owners, kind="stable")
    given_up = []
    removed: set[int] = set()
    spent = 0
    for owner in np.lexsort((np.arange(len(total)), total)).tolist():
        mine = by_owner[slice(*np.searchsorted(owners[by_owner], [owner, owner + 1]))]
        copies = {d: b for d, b in zip(documents[mine].tolist(), num_bytes[mine].tolist(), strict=True) if d not in removed}
        if spent + sum(copies.values()) > limit:
            given_up.append(owner)
        else:
            spent += sum(copies.values())
            removed.update(copies)
    return given_up
