"""Which documents stay: of equal and near-equal documents the first, held-out ones before training ones.

Documents are numbered through the corpus, unit after unit. Memory: about 70 bytes a document, and for near-duplicates 8 bytes
more for each band of the signatures (168 at the defaults). Signatures are memory-mapped from a file; names are read only for
the documents that are reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.params import CorpusParams
from data_schemas.parts import Parts
from data_schemas.tables import DUPLICATES
from tasks.ingest.duplicates.near_duplicates import find_duplicates

IDENTITY = ["doc_id", "source_uri", "record", "split"]

DOCUMENT_FACTS = np.dtype(
    [("content_high", "<u8"), ("content_low", "<u8"), ("work", "<u8"), ("num_bytes", "<i8"), ("heldout", "?")]
)


@dataclass(frozen=True)
class Selection:
    """What was decided of each document, by number.

    facts       DOCUMENT_FACTS [n]
    kept_by     int64 [n]: the kept document that it duplicates, or -1 if it stays
    similarity  float64 [n]: of the two; 1.0 for an equal text, 0 if it stays
    is_exact    bool [n]: removed because its text equals that of `kept_by`
    unit_ends   int64 [units]: where each unit's documents end
    """

    facts: np.ndarray
    kept_by: np.ndarray
    similarity: np.ndarray
    is_exact: np.ndarray
    unit_ends: np.ndarray

    @property
    def keep(self) -> np.ndarray:
        """bool [n]."""
        return self.kept_by < 0

    def of_unit(self, values: np.ndarray, unit: int) -> np.ndarray:
        """The part of an array over all documents that belongs to a unit."""
        return values[self.unit_ends[unit - 1] if unit else 0 : self.unit_ends[unit]]


def select(params: CorpusParams, parts: Parts, num_units: int, scratch: Path) -> Selection:
    """Choose among the documents of all units; `scratch` is a folder for arrays that do not fit in memory."""
    by_unit = [_load(parts, f"facts-{unit:05d}.npy") for unit in range(num_units)]
    facts = np.concatenate([np.empty(0, DOCUMENT_FACTS), *by_unit])
    unit_ends = np.cumsum([len(of_unit) for of_unit in by_unit], dtype=np.int64)
    order = np.argsort(~facts["heldout"], kind="stable")
    kept_by = equal_texts(facts, order)
    is_exact = kept_by >= 0
    similarity = np.where(is_exact, 1.0, 0.0)
    if params.near_duplicates.enabled and len(facts):
        sketches = _all_sketches(parts, num_units, len(facts), params.near_duplicates.num_permutations, scratch)
        near = find_duplicates(sketches, order[~is_exact[order]], params.near_duplicates)
        is_near = near.kept_by >= 0
        kept_by = np.where(is_near, near.kept_by, kept_by)
        similarity = np.where(is_near, near.similarity, similarity)
        # An equal copy of a document that is itself near to a third is near to that one, too.
        middle = np.where(kept_by >= 0, kept_by, 0)
        is_copy_of_near = (kept_by >= 0) & (kept_by[middle] >= 0)
        similarity = np.where(is_copy_of_near, similarity[middle], similarity)
        is_exact = is_exact & ~is_copy_of_near
        kept_by = np.where(is_copy_of_near, kept_by[middle], kept_by)
    return Selection(facts, kept_by, similarity, is_exact, unit_ends)


def equal_texts(facts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """int64 [n]: for each document the first one in `order` with the same text, -1 for that one itself."""
    high, low = facts["content_high"][order], facts["content_low"][order]
    by_content = np.lexsort((low, high))  # stable, so equal texts stay in `order`
    starts = np.ones(len(order), bool)
    starts[1:] = (high[by_content][1:] != high[by_content][:-1]) | (low[by_content][1:] != low[by_content][:-1])
    first = by_content[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))] if len(order) else by_content
    kept_by = np.full(len(facts), -1, np.int64)
    kept_by[order[by_content]] = np.where(starts, -1, order[first])
    return kept_by


def duplicate_rows(selection: Selection, parts: Parts, num_units: int) -> Iterator[pa.RecordBatch]:
    """DUPLICATES: each removed document and the kept one that it duplicates, up to 10,000 rows at a time."""
    removed = np.flatnonzero(selection.kept_by >= 0)
    if not len(removed):
        return
    needed = np.unique(np.concatenate([removed, selection.kept_by[removed]]))
    identity = pa.concat_tables(identities(selection, parts, num_units, needed))
    for first in range(0, len(removed), 10_000):
        some = removed[first : first + 10_000]
        mine = identity.take(pa.array(np.searchsorted(needed, some)))
        other = identity.take(pa.array(np.searchsorted(needed, selection.kept_by[some])))
        columns = [mine[name] for name in IDENTITY]
        kind = np.where(selection.is_exact[some], "exact", "near")
        kept = [other[name] for name in ("doc_id", "source_uri", "split")]
        values = [*columns, pa.array(kind, pa.string()), pa.array(selection.similarity[some].round(4), pa.float64()), *kept]
        table = pa.table([_one_array(v) for v in values], schema=DUPLICATES)
        yield from table.to_batches()


def identities(selection: Selection, parts: Parts, num_units: int, needed: np.ndarray) -> Iterator[pa.Table]:
    """Names of the documents `needed` (ascending numbers); reads only the units that have any of them."""
    starts = np.concatenate([[0], selection.unit_ends])
    cuts = np.searchsorted(needed, starts)
    for unit in range(num_units):
        if cuts[unit] < cuts[unit + 1]:
            with parts.reading(f"read-{unit:05d}.parquet") as path:
                here = needed[cuts[unit] : cuts[unit + 1]] - starts[unit]
                yield pq.read_table(path, columns=IDENTITY).take(pa.array(here))


def _all_sketches(parts: Parts, num_units: int, num_documents: int, size: int, scratch: Path) -> np.ndarray:
    """uint32 [documents, size], mapped."""
    with (scratch / "sketches.bin").open("wb") as file:
        for unit in range(num_units):
            file.write(_load(parts, f"sketch-{unit:05d}.npy").tobytes())
    return np.memmap(scratch / "sketches.bin", np.uint32, "r", shape=(num_documents, size))


def _load(parts: Parts, name: str) -> np.ndarray:
    with parts.reading(name) as path:
        array: np.ndarray = np.load(path, allow_pickle=False)
    return array


def _one_array(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
