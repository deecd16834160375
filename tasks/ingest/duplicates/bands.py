"""The compiled loop of near-duplicate removal: of similar documents, the first is kept.

Each band has an open hash table of the documents kept so far: `heads[band, slot]` is the latest one in a slot, and
`older[band, i]` the one before kept document i, both counted from 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

MAX_COMPARED = 200  # kept documents that a document is compared with in one band


def first_come_first_kept(
    sketches: np.ndarray, order: np.ndarray, band_rows: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [n] the kept document that this one duplicates or -1, float32 [n] share of equal places), for sketches [n, k].

    The rule is described at `near_duplicates.find_duplicates`.
    """
    num_documents, size = sketches.shape
    kept_by = np.full(num_documents, -1, np.int64)
    similarity = np.zeros(num_documents, np.float32)
    if len(order):
        num_bands = size // band_rows
        slots = 1 << max(4, int(len(order) - 1).bit_length() - 1)  # one or two documents a slot
        heads = np.zeros((num_bands, slots), np.int32)
        older = np.zeros((num_bands, len(order)), np.int32)
        min_equal = int(np.ceil(threshold * size - 1e-9))
        _loop()(sketches, order, band_rows, min_equal, MAX_COMPARED, heads, older, kept_by, similarity)
    return kept_by, similarity


@lru_cache(maxsize=1)
def _loop() -> Any:
    """The compiled loop, from the cache on disk where there can be one."""
    from numba import njit

    try:
        return njit(cache=True, nogil=True)(_keep_in_order)
    except RuntimeError:  # no folder that can be written to
        return njit(nogil=True)(_keep_in_order)


def _keep_in_order(
    sketches: Any, order: Any, band_rows: int, min_equal: int, max_compared: int,
    heads: Any, older: Any, kept_by: Any, similarity: Any,
) -> None:  # fmt: skip
    num_bands, size = heads.shape[0], sketches.shape[1]
    mask = np.uint64(heads.shape[1] - 1)
    kept = np.empty(len(order), np.int64)  # numbers of the kept documents, in order
    seen_by = np.full(len(order), -1, np.int64)  # the last newcomer that each kept document was compared with
    slots = np.empty(num_bands, np.int64)
    num_kept = 0
    for turn in range(len(order)):
        document = order[turn]
        best, best_equal = -1, min_equal - 1
        for band in range(num_bands):
            start = band * band_rows
            key = np.uint64(0)
            for i in range(start, start + band_rows):
                key = (key ^ np.uint64(sketches[document, i])) * np.uint64(0x9E3779B97F4A7C15)
                key ^= key >> np.uint64(29)
            slots[band] = np.int64(key & mask)
            entry = heads[band, slots[band]]
            num_compared = 0
            while entry and num_compared < max_compared:
                other = kept[entry - 1]
                is_equal = True
                for i in range(start, start + band_rows):
                    if sketches[document, i] != sketches[other, i]:
                        is_equal = False
                        break
                if is_equal:
                    num_compared += 1
                    if seen_by[entry - 1] != turn:
                        seen_by[entry - 1] = turn
                        equal = 0
                        for i in range(size):
                            equal += sketches[document, i] == sketches[other, i]
                        if equal > best_equal or (equal == best_equal and best >= 0 and entry - 1 < best):
                            best, best_equal = entry - 1, equal
                entry = older[band, entry - 1]
        if best >= 0:
            kept_by[document] = kept[best]
            similarity[document] = best_equal / size
        else:
            kept[num_kept] = document
            for band in range(num_bands):
                older[band, num_kept] = heads[band, slots[band]]
                heads[band, slots[band]] = num_kept + 1
            num_kept += 1
