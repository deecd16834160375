"""Ingest: the files of a corpus become documents.parquet, with what could not be read in quarantine.parquet.

The corpus is read twice, once to decide which copy of a text stays and once to write it, so that no more than one
row group of text is in memory.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.params import CorpusParams, PipelineParams
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import DOCUMENTS, QUARANTINE
from tasks.ingest.fingerprint import corpus_fingerprint
from tasks.ingest.records import Document, read_records
from tasks.ingest.sources import Listing, Refused, list_files
from tasks.ingest.split import split_of

CODE_VERSION = 1
_ROW_GROUP_BYTES = 64_000_000

Progress = Callable[[str], None]


@dataclass
class Survey:
    """What the first reading found. `kept` holds the place, in reading order, of each document that is written."""

    kept: dict[int, str] = field(default_factory=dict)  # place -> content hash
    refused: list[Refused] = field(default_factory=list)
    num_duplicates: int = 0
    num_short: int = 0

    @property
    def num_inputs(self) -> int:
        return len(self.kept) + len(self.refused) + self.num_duplicates + self.num_short


def run(params: PipelineParams, storage: Storage, progress: Progress) -> Artifact:
    """Make, or find, the `documents` artifact. Raises UserError for a corpus that cannot be trained on."""
    progress("ingest: listing and hashing the corpus")
    fingerprint = corpus_fingerprint(params.corpus, leave_out=storage.root)

    def make(directory: Path) -> dict[str, Any]:
        summary = write_documents(params.corpus, directory, progress, leave_out=storage.root)
        if corpus_fingerprint(params.corpus, leave_out=storage.root) != fingerprint:
            raise UserError("The corpus changed while it was read: run again when nothing writes to it.")
        return summary

    artifact = storage.build(
        "documents",
        stage="ingest",
        params=params.corpus.model_dump(mode="json"),
        code_version=CODE_VERSION,
        parents={"corpus": fingerprint},
        make=make,
    )
    done = artifact.manifest.summary
    progress(
        f"ingest: {done['num_documents']:,} documents ({done['num_heldout']:,} held out), {done['num_bytes']:,} bytes"
        + (", found finished" if artifact.reused else "")
    )
    return artifact


def write_documents(params: CorpusParams, directory: Path, progress: Progress, leave_out: Path | None = None) -> dict[str, Any]:
    """Write documents.parquet and quarantine.parquet into `directory`; return the summary."""
    listing = list_files(params.sources, leave_out)
    progress(f"ingest: reading {len(listing.files):,} files")
    survey = take_survey(params, listing)
    _refuse_unusable(params, listing, survey)
    _write_quarantine(survey.refused, directory / "quarantine.parquet")
    num_documents: Counter[str] = Counter()
    works: dict[str, set[str]] = {"train": set(), "heldout": set()}
    num_bytes = 0
    with pq.ParquetWriter(directory / "documents.parquet", DOCUMENTS, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        pending = 0
        for document, split in _kept_documents(params, listing, survey):
            rows.append(_row(document, split))
            num_documents[split] += 1
            works[split].add(document.work)
            num_bytes += len(document.utf8)
            pending += len(document.utf8)
            if pending >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS))
                rows, pending = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS))
    _refuse_one_sided(params, num_documents)
    return {
        "num_documents": num_documents.total(),
        "num_train": num_documents["train"],
        "num_heldout": num_documents["heldout"],
        "num_bytes": num_bytes,
        "num_duplicates": survey.num_duplicates,
        "num_skipped_short": survey.num_short,
        "quarantined": dict(sorted(Counter(r.reason for r in survey.refused).items())),
        "num_works_train": len(works["train"]),
        "num_works_heldout": len(works["heldout"]),
    }


def take_survey(params: CorpusParams, listing: Listing) -> Survey:
    """Decide what stays: of equal texts the first, but a held-out copy goes before one in training."""
    survey = Survey(refused=list(listing.refused))
    seen: dict[str, tuple[int, str]] = {}  # content hash -> (place, split)
    for place, (found, min_bytes) in enumerate(_read_all(params, listing)):
        if isinstance(found, Refused):
            survey.refused.append(found)
        elif len(found.utf8) < min_bytes:
            survey.num_short += 1
        else:
            split = split_of(found.work, params.heldout_fraction, params.split_seed)
            first = seen.get(found.content_hash)
            survey.num_duplicates += first is not None
            if first is None or (first[1] == "train" and split == "heldout"):
                seen[found.content_hash] = (place, split)
    survey.kept = {place: content_hash for content_hash, (place, _) in seen.items()}
    return survey


def _read_all(params: CorpusParams, listing: Listing) -> Iterator[tuple[Document | Refused, int]]:
    for file in listing.files:
        source = params.sources[file.source_index]
        for found in read_records(file, source):
            yield found, source.min_bytes


def _kept_documents(params: CorpusParams, listing: Listing, survey: Survey) -> Iterator[tuple[Document, str]]:
    num_yielded = 0
    for place, (found, _) in enumerate(_read_all(params, listing)):
        if place in survey.kept:
            if isinstance(found, Refused) or found.content_hash != survey.kept[place]:
                raise UserError(f"{found.source_uri} changed while it was read: run again when nothing writes to the corpus.")
            num_yielded += 1
            yield found, split_of(found.work, params.heldout_fraction, params.split_seed)
    if num_yielded != len(survey.kept):
        raise UserError("A corpus file became shorter while it was read: run again when nothing writes to the corpus.")


def _row(document: Document, split: str) -> dict[str, Any]:
    return {
        "doc_id": document.doc_id,
        "text": document.text,
        "source_uri": document.source_uri,
        "record": document.record,
        "num_bytes": len(document.utf8),
        "content_hash": document.content_hash,
        "licence": document.licence,
        "work": document.work,
        "split": split,
    }


def _write_quarantine(refused: list[Refused], path: Path) -> None:
    rows = [{"source_uri": r.source_uri, "record": r.record, "reason": r.reason, "detail": r.detail} for r in refused]
    pq.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE), path, compression="zstd")


def _refuse_unusable(params: CorpusParams, listing: Listing, survey: Survey) -> None:
    """UserError where nothing could be read, or too little of it."""
    reasons = Counter(r.reason for r in survey.refused)
    told = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
    if not survey.kept:
        where = "; ".join(f"{s.uri} ({', '.join(s.include)})" for s in params.sources)
        raise UserError(
            f"The corpus is empty: {where} matched {len(listing.files)} files, of which {len(survey.refused)} inputs were "
            f"refused{f' ({told})' if told else ''} and {survey.num_short} were shorter than min_bytes; "
            "correct corpus.sources or their include patterns."
        )
    share = len(survey.refused) / survey.num_inputs
    if share > params.max_quarantined_fraction:
        first = survey.refused[0]
        raise UserError(
            f"{len(survey.refused)} of {survey.num_inputs} inputs ({share:.0%}) cannot be read ({told}; the first is "
            f"{first.source_uri}: {first.detail}), more than corpus.max_quarantined_fraction {params.max_quarantined_fraction}: "
            "mend or exclude them, or raise that limit."
        )


def _refuse_one_sided(params: CorpusParams, num_documents: Counter[str]) -> None:
    """UserError where training or evaluation would have no document."""
    for side, name, change in (("heldout", "held-out", "raise"), ("train", "training", "lower")):
        if not num_documents[side]:
            raise UserError(
                f"The corpus has {num_documents.total()} documents and none is a {name} one with corpus.heldout_fraction "
                f"{params.heldout_fraction} and split_seed {params.split_seed}: {change} heldout_fraction, take another "
                "split_seed, or choose a finer work_by."
            )
