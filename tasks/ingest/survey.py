"""Steps 3 to 5 of ingest, on workers: read a unit of the corpus once and leave these parts:

read-N.parquet    DOCUMENTS       every document of unit N that could be read; CONVERSATIONS of instruction data
refused-N.parquet QUARANTINE      every input that could not
changes-N.parquet CHANGES         what was replaced in the documents
facts-N.npy       DOCUMENT_FACTS  hashes, length and split, to choose among all documents: 33 bytes each
sketch-N.npy      [n, k]          MinHash signatures, if near-duplicates are removed
sampled-N.npy     DOCUMENT_NGRAMS one in 8 n-grams of all documents, if excerpts are looked for
heldout-N.npy     DOCUMENT_NGRAMS n-grams of the held-out documents, if training is decontaminated
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.params import CorpusParams
from data_schemas.parts import Parts
from data_schemas.tables import CHANGES, CONVERSATIONS, DOCUMENTS, QUARANTINE
from tasks.ingest.corpus_units import ReadUnit, read_unit
from tasks.ingest.duplicates.excerpts import EXCERPT_WORDS, sampled
from tasks.ingest.duplicates.near_duplicates import Sketch
from tasks.ingest.duplicates.selection import DOCUMENT_FACTS
from tasks.ingest.reading.records import Document, Refused, Skipped
from tasks.ingest.split import Split, split_of
from tasks.ngrams.document_index import ngram_part
from tasks.ngrams.word_ngrams import distinct, ngram_blocks_of_sizes

_NO_HASHES = np.empty(0, np.uint64)
_ARRAYS = ("facts", "sketch", "sampled", "heldout")
ROW_GROUP_BYTES = 16_000_000
READ_PARTS = (
    "read-{}.parquet",
    "refused-{}.parquet",
    "changes-{}.parquet",
    *(f"{kind}-{{}}.npy" for kind in _ARRAYS),
    "read-{}.json",
)


@dataclass(frozen=True)
class ReadUnitJob:
    """Reads a unit into `parts`; returns (documents, bytes) of what was skipped, by reason."""

    params: CorpusParams
    parts: Parts

    def __call__(self, unit: ReadUnit) -> dict[str, list[int]]:
        skipped: dict[str, list[int]] = {}
        refused: list[Refused] = []
        unit_facts = _UnitFacts(self.params)
        with self.parts.writing(f"read-{unit.index:05d}.parquet") as path:
            asks = self.params.sources[unit.source_index].instructions != "no"
            write_in_groups(path, CONVERSATIONS if asks else DOCUMENTS, self._rows(unit, unit_facts, refused, skipped))
        with self.parts.writing(f"refused-{unit.index:05d}.parquet") as path:
            rows = [{name: getattr(r, name) for name in QUARANTINE.names} for r in refused]
            pq.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE), path, compression="zstd")
        with self.parts.writing(f"changes-{unit.index:05d}.parquet") as path:
            pq.write_table(pa.Table.from_pylist(unit_facts.changes, schema=CHANGES), path, compression="zstd")
        for name, array in unit_facts.arrays().items():
            with self.parts.writing(f"{name}-{unit.index:05d}.npy") as path, path.open("wb") as file:
                np.save(file, array, allow_pickle=False)
        return skipped

    def _rows(
        self, unit: ReadUnit, unit_facts: _UnitFacts, refused: list[Refused], skipped: dict[str, list[int]]
    ) -> Iterator[dict[str, Any]]:
        for found in read_unit(unit, self.params):
            if isinstance(found, Refused):
                refused.append(found)
            elif isinstance(found, Skipped):
                counts = skipped.setdefault(found.reason, [0, 0])
                counts[0] += 1
                counts[1] += found.num_bytes
            elif not found.turns and self.params.sources[unit.source_index].instructions != "no":
                told = "not a record of a conversation, and the source's instructions ask for conversations"
                refused.append(Refused(found.source_uri, found.record, "no_messages", told))
            else:
                split = self._split(unit, found)
                unit_facts.add(found, split == "heldout")
                yield {name: getattr(found, name) for name in DOCUMENTS.names if name not in ("num_bytes", "split")} | {
                    "num_bytes": len(found.utf8),
                    "split": split,
                    **_of_conversation(found),
                }

    def _split(self, unit: ReadUnit, found: Document) -> Split:
        if self.params.sources[unit.source_index].train_only:
            return "train"
        return split_of(found.work, self.params.heldout_fraction, self.params.split_seed)


class _UnitFacts:
    def __init__(self, params: CorpusParams) -> None:
        self._params = params
        self._facts: list[tuple[int, int, int, int, bool]] = []
        self._sketches: list[np.ndarray] = []
        self._sampled: list[np.ndarray] = []
        self._heldout: list[np.ndarray] = []
        self.changes: list[dict[str, Any]] = []

    def add(self, document: Document, is_heldout: bool) -> None:
        content = bytes.fromhex(document.content_hash)
        work = hashlib.sha256(document.work.encode()).digest()
        self._facts.append((_u64(content), _u64(content[8:]), _u64(work), len(document.utf8), is_heldout))
        place = {"doc_id": document.doc_id, "source_uri": document.source_uri, "record": document.record}
        self.changes += [{**place, "kind": kind, "num_places": num_places} for kind, num_places in document.changes]
        self._add_ngrams(document.text, is_heldout, bool(document.turns))

    def _add_ngrams(self, text: str, is_heldout: bool, is_conversation: bool) -> None:
        """Everything that is made of the document's words, in one pass over them; of a long text only what is kept is held.

        Conversations are compared with other documents for equality alone: several questions about one text are no duplicates.
        """
        near, decontamination = self._params.near_duplicates, self._params.decontamination
        sketch = Sketch(near.num_permutations) if near.enabled else None
        of_excerpts: list[np.ndarray] | None = [] if self._params.excerpts.enabled else None
        of_heldout: list[np.ndarray] | None = [] if is_heldout and decontamination.enabled else None
        sizes = {near.shingle_words} if near.enabled and not is_conversation else set()
        sizes |= {EXCERPT_WORDS} if of_excerpts is not None and not is_conversation else set()
        sizes |= {decontamination.ngram_words} if of_heldout is not None else set()
        for blocks in ngram_blocks_of_sizes(text, sorted(sizes)) if sizes else ():
            if sketch and near.shingle_words in blocks and not is_conversation:
                sketch.add(blocks[near.shingle_words].hashes)
            if of_excerpts is not None and EXCERPT_WORDS in blocks and not is_conversation:
                of_excerpts.append(sampled(blocks[EXCERPT_WORDS].hashes))
            if of_heldout is not None and decontamination.ngram_words in blocks:
                of_heldout.append(blocks[decontamination.ngram_words].hashes)
        if sketch:
            self._sketches.append(sketch.finished(text))
        if of_excerpts is not None:
            self._sampled.append(distinct(np.concatenate([_NO_HASHES, *of_excerpts])))
        if of_heldout is not None:
            self._heldout.append(distinct(np.concatenate([_NO_HASHES, *of_heldout])))

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {"facts": np.array(self._facts, DOCUMENT_FACTS)}
        if self._params.near_duplicates.enabled:
            arrays["sketch"] = np.array(self._sketches) if self._sketches else np.empty((0, 0), np.uint32)
        if self._params.excerpts.enabled:
            arrays["sampled"] = ngram_part(self._sampled)
        if self._params.decontamination.enabled:
            arrays["heldout"] = ngram_part(self._heldout)
        return arrays


def write_in_groups(path: Path, schema: pa.Schema, rows: Iterator[dict[str, Any]]) -> int:
    """Write rows, which have a `num_bytes`, in row groups of about 16 MB of text; returns the number of rows."""
    num_rows = pending_bytes = 0
    pending: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in rows:
            pending.append(row)
            num_rows += 1
            pending_bytes += row["num_bytes"]
            if pending_bytes >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(pending, schema=schema))
                pending, pending_bytes = [], 0
        if pending:
            writer.write_table(pa.Table.from_pylist(pending, schema=schema))
    return num_rows


def _of_conversation(document: Document) -> dict[str, Any]:
    """The columns that CONVERSATIONS has beside those of DOCUMENTS; empty for other documents."""
    if not document.turns:
        return {}
    start, end = document.context or (None, None)
    return {"turns": [dataclasses.asdict(turn) for turn in document.turns], "context_start": start, "context_end": end}


def _u64(data: bytes) -> int:
    return int.from_bytes(data[:8], "big")
