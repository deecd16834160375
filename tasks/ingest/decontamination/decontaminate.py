"""Decontamination of all units, on workers: find what each training document shares with evaluated text, then judge it.

After GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C): evaluated text is found by n-grams of 13 words. `boilerplate`
says which n-grams count and `removal` which documents go.
"""

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
from data_schemas.tables import CONTAMINATION, SHARED_TEXT
from tasks.ingest.decontamination.boilerplate import Boilerplate, SharedNgrams, find_boilerplate
from tasks.ingest.decontamination.evaluated_index import INDEX_FILES, EvaluatedIndex, build_evaluated
from tasks.ingest.decontamination.evaluated_prompts import Prompt
from tasks.ingest.decontamination.hits import hits_of, shared_text
from tasks.ingest.decontamination.removal import choose_removed
from tasks.ingest.duplicates.selection import Selection
from tasks.work import Workers, run_units

_BOILERPLATE = "boilerplate.npz"
_IDENTITY = ["doc_id", "source_uri", "record"]


@dataclass(frozen=True)
class Decontamination:
    """`removed` bool [documents]; names of the prompts that cannot remove anything: too short, or boilerplate.

    `num_given_up`: held-out documents that so much training text copies that the copies stay.
    """

    removed: np.ndarray
    short_prompts: tuple[str, ...] = ()
    ignored_prompts: tuple[str, ...] = ()
    num_given_up: int = 0


def decontaminate(
    params: DecontaminationParams,
    prompts: Sequence[Prompt],
    parts: Parts,
    selection: Selection,
    keep: np.ndarray,
    workers: Workers,
    scratch: Path,
) -> Decontamination:
    """Find the training documents that contain evaluated text. Writes what `report_rows` reads of each unit.

    `keep`, bool [documents]: those that no step before has removed.
    """
    removed = np.zeros(len(selection.facts), bool)
    if not params.enabled:
        return Decontamination(removed)
    num_units = len(selection.unit_ends)
    is_heldout = selection.facts["heldout"]
    num_heldout = [int(selection.of_unit(is_heldout, unit).sum()) for unit in range(num_units)]
    heldout = [parts.kept(f"heldout-{unit:05d}.npy") for unit in range(num_units)]
    index = build_evaluated(scratch / "index", params.ngram_words, heldout, num_heldout, prompts)
    for name in INDEX_FILES:
        with parts.writing(name) as path:
            shutil.copyfile(index.directory / name, path)
    is_training = keep & ~is_heldout
    units = [(unit, selection.of_unit(is_training, unit)) for unit in range(num_units)]
    for _ in run_units(workers, CompareJob(parts), units, parts, "compared"):
        pass

    def shared() -> Iterator[SharedNgrams]:
        return (_shared(parts, unit, selection.of_unit(selection.facts["num_bytes"], unit)) for unit in range(num_units))

    training_bytes = int(selection.facts["num_bytes"][is_training].sum())
    boilerplate = find_boilerplate(index, params, keep[is_heldout], shared, training_bytes)
    with parts.writing(_BOILERPLATE) as path, path.open("wb") as file:
        np.savez(file, **vars(boilerplate))
    for unit, of_unit in enumerate(choose_removed(index, boilerplate, params.heldout_share, shared)):
        selection.of_unit(removed, unit)[:] = of_unit
    starts = np.cumsum([0, *num_heldout])
    to_judge = [(unit, selection.of_unit(removed, unit), int(starts[unit])) for unit in range(num_units)]
    for unit, places in enumerate(run_units(workers, JudgeJob(parts), to_judge, parts, "judged")):
        selection.of_unit(removed, unit)[places] = True
    given_up = int(boilerplate.is_given_up.sum())
    return Decontamination(removed, tuple(index.short_prompts), tuple(boilerplate.ignored_prompts(index)), given_up)


def report_rows(name: str, parts: Parts, num_units: int) -> Iterator[pa.Table]:
    """CONTAMINATION for `name` "contamination", SHARED_TEXT for "shared_text"; a unit at a time."""
    for unit in range(num_units):
        with parts.reading(f"{name}-{unit:05d}.parquet") as path:
            yield pq.read_table(path)


@dataclass(frozen=True)
class CompareJob:
    """Writes `shared-N.npz`: what the training documents of unit N share with evaluated text."""

    parts: Parts

    def __call__(self, unit: tuple[int, np.ndarray]) -> None:
        number, is_training = unit
        index = _index(self.parts)
        documents, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        own = np.zeros(len(is_training), np.int64)
        for place, document in _documents(self.parts, number, is_training, ["text"]):
            found, own[place] = index.shared_by(document["text"])
            places.append(found)
            documents.append(np.full(len(found), place))
        with self.parts.writing(f"shared-{number:05d}.npz") as path, path.open("wb") as file:
            np.savez(file, documents=np.concatenate(documents), places=np.concatenate(places), own=own)


@dataclass(frozen=True)
class JudgeJob:
    """Writes `contamination-N.parquet` and `shared_text-N.parquet`; returns the places in the unit of the documents that
    prompts remove.

    A unit is its number, bool [documents] those that held-out text removes, and the number of its first held-out document.
    """

    parts: Parts

    def __call__(self, unit: tuple[int, np.ndarray, int]) -> list[int]:
        number, is_removed, first_heldout = unit
        index, boilerplate = _index(self.parts), _boilerplate(self.parts)
        shared = _shared(self.parts, number, np.empty(0, np.int64))
        is_heldout = shared.places < len(index.heldout)
        is_suspect = np.zeros(len(is_removed), bool)
        is_suspect[shared.documents[~is_heldout & ~boilerplate.is_common[shared.places]]] = True
        _, which = boilerplate.counted(index, shared.places[is_heldout])
        is_suspect[shared.documents[is_heldout][np.unique(which)]] = True
        rows: list[dict[str, Any]] = []
        by_prompt = []
        for place, document in _documents(self.parts, number, is_suspect, [*_IDENTITY, "text"]):
            hits = hits_of(index, boilerplate, document["text"], bool(is_removed[place]))
            rows += [{name: document[name] for name in _IDENTITY} | asdict(hit) for hit in hits]
            if any(hit.removed for hit in hits) and not is_removed[place]:
                by_prompt.append(place)
        self._write("contamination", number, rows, CONTAMINATION)
        self._write("shared_text", number, self._shared_texts(number, first_heldout), SHARED_TEXT)
        return by_prompt

    def _shared_texts(self, number: int, first: int) -> list[dict[str, Any]]:
        index, boilerplate = _index(self.parts), _boilerplate(self.parts)
        with self.parts.reading(f"read-{number:05d}.parquet") as path:
            is_heldout = pq.read_table(path, columns=["split"])["split"].to_numpy() == "heldout"
        places = np.flatnonzero(is_heldout)
        mine = slice(first, first + len(places))
        is_told = (boilerplate.num_common[mine] > 0) & boilerplate.is_alive[mine] & ~boilerplate.is_copied[mine]
        wanted = np.zeros(len(is_heldout), bool)
        wanted[places[is_told]] = True
        numbers = first + np.flatnonzero(is_told)
        return [
            {name: document[name] for name in _IDENTITY}
            | asdict(shared_text(index, boilerplate, int(heldout), document["text"]))
            for heldout, (_, document) in zip(
                numbers, _documents(self.parts, number, wanted, [*_IDENTITY, "text"]), strict=True
            )
        ]

    def _write(self, name: str, number: int, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        with self.parts.writing(f"{name}-{number:05d}.parquet") as path:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def _shared(parts: Parts, unit: int, num_bytes: np.ndarray) -> SharedNgrams:
    with parts.reading(f"shared-{unit:05d}.npz") as path, np.load(path) as kept:
        return SharedNgrams(kept["documents"], kept["places"], kept["own"], num_bytes)


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


@lru_cache(maxsize=1)
def _index(parts: Parts) -> EvaluatedIndex:
    """The index, in a worker."""
    folders = {parts.kept(name).parent for name in INDEX_FILES}
    return EvaluatedIndex(folders.pop())


@lru_cache(maxsize=1)
def _boilerplate(parts: Parts) -> Boilerplate:
    with np.load(parts.kept(_BOILERPLATE)) as kept:
        return Boilerplate(**kept)
