"""Pairs of documents of which one repeats a passage of the other, by shared n-grams of 13 words.

    all documents ─ sampled, in the survey ─▶ pairs that may share enough ─▶ CandidateJob: all their n-grams ─▶ exact shares

An n-gram is sampled by its hash alone, so two documents that share a passage sample the same n-grams of it. An n-gram that more
than `max_documents` documents have is boilerplate, and counts in no pair; that also bounds the pairs of each n-gram.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.params import ExcerptParams
from data_schemas.parts import Parts
from data_schemas.tables import EXCERPTS
from tasks.ingest.duplicates.selection import IDENTITY, Selection, identities
from tasks.ngrams.document_index import merged_ranges, ngram_part, opened
from tasks.ngrams.word_ngrams import distinct_ngrams
from tasks.work import Workers, run_units

EXCERPT_WORDS = 13
_SAMPLED_BITS = np.uint64(3)  # one n-gram in 8
_SLACK = 0.4  # a sampled share may be this part of the wanted one, so that chance misses few pairs
_MIN_SAMPLED = 2


@dataclass(frozen=True)
class Excerpts:
    """Pairs, ascending by the later document, and what they remove.

    later, earlier  int64 [pairs]: documents, by number; a held-out document is earlier than a training one
    num_shared      int64 [pairs]: different n-grams that both have
    share           float64 [pairs]: of the n-grams of the shorter one
    removed         bool [documents]
    """

    later: np.ndarray
    earlier: np.ndarray
    num_shared: np.ndarray
    share: np.ndarray
    removed: np.ndarray


def sampled(ngrams: np.ndarray) -> np.ndarray:
    """Those of the hashes of n-grams that are sampled."""
    return ngrams[ngrams >> (np.uint64(64) - _SAMPLED_BITS) == 0]


def find_excerpts(params: ExcerptParams, parts: Parts, selection: Selection, workers: Workers) -> Excerpts:
    """Pairs among the documents that are kept so far; equal and near-equal documents are no longer among them.

    Memory: about 200 MB for merging, 16 bytes a document, and 32 bytes a pair that shares any sampled n-gram.
    """
    removed = np.zeros(len(selection.facts), bool)
    nothing = np.empty(0, np.int64)
    if not params.enabled:
        return Excerpts(nothing, nothing, nothing, np.empty(0), removed)
    num_units = len(selection.unit_ends)
    num_documents = np.diff(selection.unit_ends, prepend=0).tolist()
    of_survey = opened([parts.kept(f"sampled-{unit:05d}.npy") for unit in range(num_units)])
    sizes = _sizes(of_survey, num_documents)
    first, second, count = shared_pairs(of_survey, num_documents, selection.keep, params.max_documents)
    may_be = (count >= _MIN_SAMPLED) & (count >= _SLACK * params.share * np.minimum(sizes[first], sizes[second]))
    is_candidate = np.zeros(len(removed), bool)
    is_candidate[first[may_be]] = is_candidate[second[may_be]] = True
    units = [(unit, selection.of_unit(is_candidate, unit)) for unit in range(num_units)]
    for _ in run_units(workers, CandidateJob(parts), units, parts, "candidates"):
        pass
    complete = opened([parts.kept(_candidates_name(unit)) for unit in range(num_units)])
    sizes = _sizes(complete, num_documents)
    first, second, count = shared_pairs(complete, num_documents, is_candidate, params.max_documents)
    share = count / np.maximum(np.minimum(sizes[first], sizes[second]), 1)
    is_enough = share >= params.share
    first, second, count, share = first[is_enough], second[is_enough], count[is_enough], share[is_enough]
    is_training = ~selection.facts["heldout"]
    swaps = is_training[first] & ~is_training[second]
    earlier, later = np.where(swaps, second, first), np.where(swaps, first, second)
    order = np.lexsort((earlier, later, is_training[later]))
    found = Excerpts(later[order], earlier[order], count[order], share[order], removed)
    if params.remove:
        for one, other in zip(found.later.tolist(), found.earlier.tolist(), strict=True):
            removed[one] |= is_training[one] and not removed[other]
    return found


def shared_pairs(
    arrays: Sequence[np.ndarray], num_documents: Sequence[int], is_wanted: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, number of shared n-grams), int64 [pairs], first < second, ascending.

    Args:
        arrays: DOCUMENT_NGRAMS of each unit.
        is_wanted: bool [documents]; the others are in no pair.
        most: an n-gram of more wanted documents is in no pair.
    """
    width = len(is_wanted)
    keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for merged in merged_ranges(arrays, num_documents):
        wanted = merged[is_wanted[merged["document"]]]
        is_first = np.ones(len(wanted), bool)
        np.not_equal(wanted["hash"][1:], wanted["hash"][:-1], out=is_first[1:])
        starts = np.flatnonzero(is_first)
        owners = np.diff(starts, append=len(wanted))
        documents = wanted["document"].astype(np.int64)
        new = [np.empty(0, np.int64)]
        for number in range(2, most + 1):
            of_number = starts[owners == number]
            new += [documents[of_number + i] * width + documents[of_number + j] for i, j in combinations(range(number), 2)]
        keys, counts = _summed(keys, counts, np.concatenate(new))
    return keys // max(width, 1), keys % max(width, 1), counts


def excerpt_rows(found: Excerpts, selection: Selection, parts: Parts) -> Iterator[pa.RecordBatch]:
    """EXCERPTS, up to 10,000 rows at a time."""
    if not len(found.later):
        return
    needed = np.unique(np.concatenate([found.later, found.earlier]))
    identity = pa.concat_tables(identities(selection, parts, len(selection.unit_ends), needed))
    for first in range(0, len(found.later), 10_000):
        some = slice(first, first + 10_000)
        pair = [identity.take(pa.array(np.searchsorted(needed, of[some]))) for of in (found.later, found.earlier)]
        columns = [one[name].combine_chunks() for one in pair for name in IDENTITY]
        numbers = (found.num_shared[some], found.share[some].round(4), found.removed[found.later[some]])
        yield from pa.table([*columns, *map(pa.array, numbers)], schema=EXCERPTS).to_batches()


@dataclass(frozen=True)
class CandidateJob:
    """Writes `candidates-N.npy`: all n-grams of the documents of unit N that may be in a pair."""

    parts: Parts

    def __call__(self, unit: tuple[int, np.ndarray]) -> None:
        number, is_candidate = unit
        ngrams = [np.empty(0, np.uint64)] * len(is_candidate)
        if is_candidate.any():
            for place, text in self._texts(number, is_candidate):
                ngrams[place] = distinct_ngrams(text, EXCERPT_WORDS)
        with self.parts.writing(_candidates_name(number)) as path, path.open("wb") as file:
            np.save(file, ngram_part(ngrams), allow_pickle=False)

    def _texts(self, number: int, wanted: np.ndarray) -> Iterator[tuple[int, str]]:
        with self.parts.reading(f"read-{number:05d}.parquet") as path:
            groups = pq.ParquetFile(path)
            first = 0
            for group in range(groups.num_row_groups):
                num_rows = groups.metadata.row_group(group).num_rows
                places = np.flatnonzero(wanted[first : first + num_rows])
                if len(places):
                    texts = groups.read_row_group(group, columns=["text"])["text"].take(pa.array(places))
                    yield from zip((places + first).tolist(), texts.to_pylist(), strict=True)
                first += num_rows


def _sizes(arrays: Sequence[np.ndarray], num_documents: Sequence[int]) -> np.ndarray:
    """int64 [documents]: n-grams of each."""
    sizes = [np.bincount(array["document"], minlength=num) for array, num in zip(arrays, num_documents, strict=True)]
    return np.concatenate([np.empty(0, np.int64), *sizes])


def _summed(keys: np.ndarray, counts: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different keys of both, ascending, and how often each occurs."""
    new, new_counts = np.unique(more, return_counts=True)
    together, place = np.unique(np.concatenate([keys, new]), return_inverse=True)
    total = np.zeros(len(together), np.int64)
    np.add.at(total, place, np.concatenate([counts, new_counts]))
    return together, total


def _candidates_name(unit: int) -> str:
    return f"candidates-{unit:05d}.npy"
