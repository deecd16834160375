"""What remains of held-out text in training, measured on the chunks that are packed.

    held-out documents ─ HeldoutJob ─▶ parts ─ build_index ─┐
    chunks of the packed rows ─ SeenJob ─▶ n-grams found ───┴▶ seen_heldout.parquet, a share for each held-out document

An n-gram is a run of 13 words, as in decontamination. Neighbouring chunks of a document are joined, so an n-gram across a cut
between them counts too: the share is an upper bound of what a model can have read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_schemas.parts import Parts
from data_schemas.tables import SEEN_HELDOUT, SEEN_HELDOUT_FILE
from tasks.ngrams.document_index import NGRAM_FILES, NgramIndex, build_index, ngram_part
from tasks.ngrams.word_ngrams import distinct_ngrams
from tasks.pack.sequences import entries_name
from tasks.work import Workers, run_units

NGRAM_WORDS = 13
_WORST = 5
_IDENTITY = ["doc_id", "source", "source_uri", "record"]
Spans = dict[str, list[tuple[int, int]]]  # of characters, by document


def measure_seen(
    documents: Parts,
    names: Sequence[str],
    parts: Parts,
    packed: np.ndarray,
    plan: str,
    workers: Workers,
    directory: Path,
    retrieval: Parts | None = None,
    retrieval_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Write SEEN_HELDOUT_FILE into `directory`; returns a summary that names the worst documents.

    Args:
        documents: the `documents` artifact, whose files `names` are the parts of the corpus.
        parts: the parts that chunking wrote.
        packed: int [n], numbers of the training sequences that are in rows, repeats included.
        plan: distinguishes this packing from others of the same parts.
        retrieval: the `retrieval` artifact, if there is one, whose files `retrieval_names` are the parts after those of the corpus.

    Memory: about 200 MB for the index, and one byte an n-gram of held-out text.
    """
    units = list(enumerate(names))
    num_heldout = list(run_units(workers, HeldoutJob(documents, parts), units, parts, "seen-heldout"))
    scratch = directory / ".seen"
    index = build_index(scratch, [parts.kept(_heldout_name(part)) for part, _ in units], num_heldout)
    for name in NGRAM_FILES:
        with parts.writing(name) as path:
            shutil.copyfile(scratch / name, path)
    is_seen = np.zeros(len(index), bool)
    job = SeenJob(documents, parts, plan, len(names), retrieval)
    all_units = list(enumerate([*names, *retrieval_names]))
    by_part = [(*unit, of_part) for unit, of_part in zip(all_units, _by_part(parts, len(all_units), packed), strict=True)]
    for part, _ in enumerate(run_units(workers, job, by_part, parts, f"seen-{plan}")):
        with parts.reading(job.part_name(part)) as path:
            is_seen[np.load(path)] = True
    table = _table(documents, names, index, is_seen)
    shutil.rmtree(scratch)
    pq.write_table(table, directory / SEEN_HELDOUT_FILE, compression="zstd")
    return _summary(table)


@dataclass(frozen=True)
class HeldoutJob:
    """Writes the n-grams of the held-out documents of one part; returns their number."""

    documents: Parts
    parts: Parts

    def __call__(self, unit: tuple[int, str]) -> int:
        number, name = unit
        ngrams = [distinct_ngrams(text, NGRAM_WORDS) for _, text in _texts(self.documents, name, "heldout")]
        with self.parts.writing(_heldout_name(number)) as path, path.open("wb") as file:
            np.save(file, ngram_part(ngrams), allow_pickle=False)
        return len(ngrams)


@dataclass(frozen=True)
class SeenJob:
    """Writes which n-grams of held-out text occur in the packed chunks of one part: int64 [n] places in the index.

    A unit is the part's number and file, and int64 [m] the packed ones of its training sequences. Parts from number `first_retrieval` on
    are of the `retrieval` artifact.
    """

    documents: Parts
    parts: Parts
    plan: str
    first_retrieval: int
    retrieval: Parts | None = None

    def __call__(self, unit: tuple[int, str, np.ndarray]) -> None:
        number, name, sequences = unit
        index = _index(self.parts)
        found = [np.empty(0, np.int64)]
        texts = self._retrieved(name, sequences) if number >= self.first_retrieval else self._chunked(number, name, sequences)
        for text in texts:
            found.append(index.find(distinct_ngrams(text, NGRAM_WORDS)))
        with self.parts.writing(self.part_name(number)) as path, path.open("wb") as file:
            np.save(file, np.unique(np.concatenate(found)), allow_pickle=False)

    def part_name(self, number: int) -> str:
        return f"seen-{self.plan}-{number:05d}.npy"

    def _chunked(self, number: int, name: str, sequences: np.ndarray) -> Iterator[str]:
        spans = self._spans(number, sequences)
        for doc_id, text in _texts(self.documents, name, "train"):
            for start, end in _joined(spans.get(doc_id, [])):
                yield text[start:end]

    def _retrieved(self, name: str, sequences: np.ndarray) -> Iterator[str]:
        if self.retrieval is None:
            raise ValueError(f"part {name} is of a retrieval artifact, which was not given")
        wanted = set(sequences.tolist())
        with self.retrieval.reading(name) as path:
            place = 0
            for batch in pq.ParquetFile(path).iter_batches(batch_size=64, columns=["text"]):
                for text in batch["text"].to_pylist():
                    if place in wanted:
                        yield text
                    place += 1

    def _spans(self, number: int, sequences: np.ndarray) -> Spans:
        with self.parts.reading(entries_name("train", number)) as path, pa.memory_map(str(path)) as file:
            wanted = pa.ipc.open_file(file).read_all()["chunk_id"].take(pa.array(sequences)).combine_chunks()
        spans: Spans = {}
        with self.parts.reading(f"chunks-{number:05d}.parquet") as path:
            for batch in pq.ParquetFile(path).iter_batches(columns=["chunk_id", "doc_id", "char_start", "char_end"]):
                for row in batch.filter(pc.is_in(batch["chunk_id"], value_set=wanted)).to_pylist():
                    spans.setdefault(row["doc_id"], []).append((row["char_start"], row["char_end"]))
        return spans


def _by_part(parts: Parts, num_parts: int, packed: np.ndarray) -> Iterator[np.ndarray]:
    """The different numbers in `packed`, for each part, counted from the part's first training sequence."""
    different = np.unique(packed)
    first = 0
    for part in range(num_parts):
        with parts.reading(entries_name("train", part)) as path, pa.memory_map(str(path)) as file:
            num_sequences = pa.ipc.open_file(file).read_all().num_rows
        yield different[slice(*np.searchsorted(different, [first, first + num_sequences]))] - first
        first += num_sequences


def _joined(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in order, those that touch or overlap as one."""
    begun: tuple[int, int] | None = None
    for start, end in sorted(spans):
        if begun and start <= begun[1]:
            begun = (begun[0], max(begun[1], end))
            continue
        if begun:
            yield begun
        begun = (start, end)
    if begun:
        yield begun


def _texts(documents: Parts, name: str, split: str) -> Iterator[tuple[str, str]]:
    """(doc_id, text) of the documents of one split, in order; one row group is in memory."""
    with documents.reading(name) as path:
        groups = pq.ParquetFile(path)
        for group in range(groups.num_row_groups):
            table = groups.read_row_group(group, columns=["doc_id", "text", "split"])
            table = table.filter(pc.field("split") == split)
            yield from zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True)


def _table(documents: Parts, names: Sequence[str], index: NgramIndex, is_seen: np.ndarray) -> pa.Table:
    identities = []
    for name in names:
        with documents.reading(name) as path:
            table = pq.read_table(path, columns=[*_IDENTITY, "split"])
        identities.append(table.filter(pc.field("split") == "heldout").select(_IDENTITY))
    identity = pa.concat_tables(identities).combine_chunks()
    num_seen = index.count_by_document(is_seen)
    counts = [index.sizes, num_seen, num_seen / np.maximum(index.sizes, 1)]
    return pa.table([*identity.columns, *map(pa.array, counts)], schema=SEEN_HELDOUT)


def _summary(table: pa.Table) -> dict[str, Any]:
    """The shares of all held-out documents: their mean, weighted by length, and the worst."""
    seen = table.filter(pc.field("num_seen") > 0)
    worst = seen.sort_by([("share", "descending"), ("doc_id", "ascending")]).slice(0, _WORST)
    total = sum(table["num_ngrams"].to_pylist())
    return {
        "num_documents": len(table),
        "num_seen": len(seen),
        "share": sum(seen["num_seen"].to_pylist()) / total if total else 0.0,
        "worst": worst.select(["doc_id", "source_uri", "record", "share"]).to_pylist(),
    }


@lru_cache(maxsize=1)
def _index(parts: Parts) -> NgramIndex:
    """The index, in a worker."""
    folders = {parts.kept(name).parent for name in NGRAM_FILES}
    return NgramIndex(folders.pop())


def _heldout_name(part: int) -> str:
    return f"seen-heldout-{part:05d}.npy"
