"""Decontamination of all units, on workers: find what each training document shares with evaluated text, then judge it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.params import DecontaminationParams
from data_schemas.parts import Parts
from data_schemas.tables import CONTAMINATION
from tasks.ingest.decontamination.evaluated_prompts import Prompt
from tasks.ingest.decontamination.index_building import build_index, mark_common
from tasks.ingest.decontamination.ngram_index import INDEX_FILES, EvaluatedIndex
from tasks.ingest.duplicates.selection import Selection
from tasks.work import Workers, run_units

_WRITTEN_AFTER_COUNTING = ("common.npy", "heldout_sizes.npy")
_IDENTITY = ["doc_id", "source_uri", "record"]


@dataclass(frozen=True)
class Decontamination:
    """`removed` bool [documents]; names of the prompts that cannot remove anything: too short, or boilerplate."""

    removed: np.ndarray
    short_prompts: tuple[str, ...] = ()
    ignored_prompts: tuple[str, ...] = ()


def decontaminate(
    params: DecontaminationParams,
    prompts: Sequence[Prompt],
    parts: Parts,
    selection: Selection,
    workers: Workers,
    scratch: Path,
) -> Decontamination:
    """Find the training documents that contain evaluated text. Writes each unit's hits to `contamination-N.parquet`."""
    removed = np.zeros(len(selection.facts), bool)
    if not params.enabled:
        return Decontamination(removed)
    num_units = len(selection.unit_ends)
    heldout = [parts.kept(f"heldout-{unit:05d}.npy") for unit in range(num_units)]
    index = build_index(scratch / "index", params, heldout, prompts)
    _publish(index, parts, [name for name in INDEX_FILES if name not in _WRITTEN_AFTER_COUNTING])
    is_training = selection.keep & ~selection.facts["heldout"]
    units = [(unit, selection.of_unit(is_training, unit)) for unit in range(num_units)]
    for _ in run_units(workers, CompareJob(parts), units, parts, "compared"):
        pass
    mark_common(index, (_shared(parts, unit)[1] for unit in range(num_units)), params)
    _publish(index, parts, list(_WRITTEN_AFTER_COUNTING))
    for unit, places in enumerate(run_units(workers, JudgeJob(parts), range(num_units), parts, "judged")):
        selection.of_unit(removed, unit)[places] = True
    return Decontamination(removed, tuple(index.short_prompts), tuple(index.ignored_prompts()))


def contamination_rows(parts: Parts, num_units: int) -> Iterator[pa.Table]:
    """CONTAMINATION, a unit at a time."""
    for unit in range(num_units):
        with parts.reading(f"contamination-{unit:05d}.parquet") as path:
            yield pq.read_table(path)


@dataclass(frozen=True)
class CompareJob:
    """Writes `shared-N.npy`, int64 [2, n]: pairs of a training document, by its place in the unit, and an evaluated n-gram
    that it contains, by its place in the index."""

    parts: Parts

    def __call__(self, unit: tuple[int, np.ndarray]) -> None:
        number, is_training = unit
        index = _opened(self.parts, counting=True)
        documents, ngrams = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for place, document in _documents(self.parts, number, is_training, ["text"]):
            ngrams.append(index.places_of(document["text"]))
            documents.append(np.full(len(ngrams[-1]), place))
        with self.parts.writing(f"shared-{number:05d}.npy") as path, path.open("wb") as file:
            np.save(file, np.stack([np.concatenate(documents), np.concatenate(ngrams)]), allow_pickle=False)


@dataclass(frozen=True)
class JudgeJob:
    """Judges the documents of a unit that share more than boilerplate with evaluated text.

    Writes `contamination-N.parquet`; returns the places in the unit of the documents to remove.
    """

    parts: Parts

    def __call__(self, number: int) -> list[int]:
        index = _opened(self.parts, counting=False)
        documents, ngrams = _shared(self.parts, number)
        is_suspect = np.zeros(int(documents.max(initial=-1)) + 1, bool)
        is_suspect[documents[~index.is_common[ngrams]]] = True
        rows: list[dict[str, Any]] = []
        removed = []
        for place, document in _documents(self.parts, number, is_suspect, [*_IDENTITY, "text"]):
            hits = index.judge(document["text"])
            rows += [{name: document[name] for name in _IDENTITY} | asdict(hit) for hit in hits]
            if any(hit.removed for hit in hits):
                removed.append(place)
        with self.parts.writing(f"contamination-{number:05d}.parquet") as path:
            pq.write_table(pa.Table.from_pylist(rows, schema=CONTAMINATION), path, compression="zstd")
        return removed


def _shared(parts: Parts, unit: int) -> np.ndarray:
    with parts.reading(f"shared-{unit:05d}.npy") as path:
        return np.load(path)


def _documents(parts: Parts, unit: int, wanted: np.ndarray, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place in the unit, document) of the wanted documents; reads one row group at a time."""
    with parts.reading(f"read-{unit:05d}.parquet") as path:
        groups = pq.ParquetFile(path)
        first = 0
        for group in range(groups.num_row_groups):
            num_rows = groups.metadata.row_group(group).num_rows
            places = np.flatnonzero(wanted[first : first + num_rows])
            if len(places):
                table = groups.read_row_group(group, columns=columns).take(pa.array(places))
                yield from zip((places + first).tolist(), table.to_pylist(), strict=True)
            first += num_rows


@lru_cache(maxsize=2)
def _opened(parts: Parts, counting: bool) -> EvaluatedIndex:
    """The index, in a worker; `counting`: without the boilerplate, which is not known yet."""
    names = [name for name in INDEX_FILES if not counting or name not in _WRITTEN_AFTER_COUNTING]
    folders = {parts.kept(name).parent for name in names}
    return EvaluatedIndex(folders.pop())


def _publish(index: EvaluatedIndex, parts: Parts, names: list[str]) -> None:
    for name in names:
        with parts.writing(name) as path:
            shutil.copyfile(index.directory / name, path)
