"""Ingest: a corpus becomes the `documents` artifact.

    documents-00000-of-00012.parquet  what is trained and evaluated on, in the order of the corpus
    quarantine.parquet                what could not be read, and why
    duplicates.parquet                which document kept which out
    contamination.parquet             which training documents hold what the model is evaluated on

Units of the corpus are read by workers (`survey`), all documents together are chosen from here (`selection`), training
documents are compared with what is evaluated (`decontamination`), and workers write what stays (`write_job`). Memory
holds one row group of text a worker, and here some 250 bytes a document and 15 an n-gram of held-out text.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.manifest import stage_digest
from data_schemas.params import CorpusParams, DecontaminationParams, PipelineParams
from data_schemas.parts import Parts
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import CONTAMINATION, DUPLICATES, QUARANTINE
from tasks.ingest.decontamination_jobs import Decontamination, contamination_rows, decontaminate
from tasks.ingest.documents import part_name
from tasks.ingest.locations import without_secrets
from tasks.ingest.prompts import read_prompts
from tasks.ingest.selection import Selection, duplicate_rows, select
from tasks.ingest.survey import ReadUnitJob
from tasks.ingest.units import Corpus, plan_corpus
from tasks.ingest.write_job import WriteUnitJob
from tasks.workers import Workers, WorkersFor, run_units

CODE_VERSION = 3

Progress = Callable[[str], None]


def run(params: PipelineParams, storage: Storage, workers_for: WorkersFor, progress: Progress) -> Artifact:
    """Make, or find, the `documents` artifact. Raises UserError for a corpus that cannot be trained on."""
    progress("ingest: listing and hashing the corpus")
    leave_out = storage.remote.uri if storage.remote else storage.root
    corpus = plan_corpus(params.corpus, leave_out)

    inputs: dict[str, Any] = {
        "stage": "ingest",
        "params": _recorded(params.corpus),
        "code_version": CODE_VERSION,
        "parents": {"corpus": corpus.fingerprint} | prompts_fingerprint(params.corpus.decontamination),
    }
    parts_key = stage_digest(**inputs)

    def make(directory: Path) -> dict[str, Any]:
        with workers_for(corpus.num_bytes) as workers, storage.parts(parts_key, workers.on_other_machines) as parts:
            summary = _Ingestion(params.corpus, corpus, parts, workers, progress).write(directory)
        if plan_corpus(params.corpus, leave_out).fingerprint != corpus.fingerprint:
            raise UserError("The corpus changed while it was read: run again when nothing writes to it.")
        return summary

    artifact = storage.build("documents", make=make, **inputs)
    if not artifact.reused:
        storage.drop_parts(parts_key)
    done = artifact.manifest.summary
    progress(
        f"ingest: {done['num_documents']:,} documents ({done['num_heldout']:,} held out), {done['num_bytes']:,} bytes"
        + (", found finished" if artifact.reused else "")
    )
    return artifact


def _recorded(params: CorpusParams) -> dict[str, Any]:
    """What determines the documents, as it may stand in a manifest: a URI can hold a password or a signature.

    How sources are mixed is for packing to know.
    """
    recorded: dict[str, Any] = params.model_dump(mode="json", exclude={"sources": {"__all__": {"weight", "max_repeats"}}})
    for source in recorded["sources"]:
        source["uri"] = without_secrets(source["uri"])
    recorded["decontamination"]["prompt_files"] = [without_secrets(name) for name in params.decontamination.prompt_files]
    return recorded


def prompts_fingerprint(params: DecontaminationParams) -> dict[str, str]:
    """The evaluation prompts' content as one more parent of the documents; nothing where there are none."""
    if not (params.enabled and params.prompt_files):
        return {}
    texts = json.dumps([[prompt.name, prompt.text] for prompt in read_prompts(params.prompt_files)])
    return {"prompts": hashlib.sha256(texts.encode()).hexdigest()}


class _Ingestion:
    """One making of the `documents` artifact."""

    def __init__(self, params: CorpusParams, corpus: Corpus, parts: Parts, workers: Workers, progress: Progress) -> None:
        self._params, self._corpus, self._parts, self._workers, self._progress = params, corpus, parts, workers, progress
        self._num_units = len(corpus.units)

    def write(self, directory: Path) -> dict[str, Any]:
        """Fill `directory`; returns the summary."""
        skipped = self._read()
        quarantined = self._write_quarantine(directory / "quarantine.parquet")
        scratch = Path(directory, ".scratch")
        scratch.mkdir()
        selection = select(self._params, self._parts, self._num_units, scratch)
        self._refuse_unusable(selection, quarantined, skipped)
        _write_batches(directory / "duplicates.parquet", DUPLICATES, duplicate_rows(selection, self._parts, self._num_units))
        num_near = int((selection.kept_by >= 0).sum() - selection.is_exact.sum())
        self._progress(f"ingest: {int(selection.is_exact.sum()):,} duplicates and {num_near:,} near-duplicates left out")
        found = decontaminate(self._params, self._parts, selection, self._workers, scratch)
        hits = contamination_rows(self._parts, self._num_units) if self._params.decontamination.enabled else iter(())
        _write_batches(directory / "contamination.parquet", CONTAMINATION, hits)
        self._tell_contamination(found)
        summary = self._write_documents(directory, selection, found)
        shutil.rmtree(scratch)
        return summary | {
            "num_duplicates": int(selection.is_exact.sum()),
            "num_near_duplicates": num_near,
            "num_contaminated": int(found.removed.sum()),
            "num_files_unmatched": self._corpus.num_unmatched,
            "skipped": {"short": 0, "language": 0} | dict(sorted(skipped.items())),
            "num_prompts_without_effect": len(found.short_prompts) + len(found.ignored_prompts),
            "quarantined": dict(sorted(quarantined.items())),
        }

    def _read(self) -> Counter[str]:
        self._progress(f"ingest: reading {self._corpus.num_files:,} files in {self._num_units:,} units")
        skipped: Counter[str] = Counter()
        job = ReadUnitJob(self._params, self._parts)
        every = max(1, self._num_units // 20)
        for number, of_unit in enumerate(run_units(self._workers, job, self._corpus.units, self._parts, "read"), 1):
            skipped.update(of_unit)
            if number % every == 0 and self._num_units > every:
                self._progress(f"ingest: {number:,} of {self._num_units:,} units read")
        return skipped

    def _tell_contamination(self, found: Decontamination) -> None:
        if self._params.decontamination.enabled:
            self._progress(f"ingest: {int(found.removed.sum()):,} training documents hold what is evaluated, left out")
        for names, why in ((found.short_prompts, "shorter than 8 words"), (found.ignored_prompts, "boilerplate")):
            if names:
                self._progress(f"ingest: {len(names):,} prompts remove nothing, being {why}: {', '.join(names[:5])}")

    def _write_quarantine(self, path: Path) -> Counter[str]:
        listed = [{name: getattr(r, name) for name in QUARANTINE.names} for r in self._corpus.refused]
        counts: Counter[str] = Counter(row["reason"] for row in listed)
        with pq.ParquetWriter(path, QUARANTINE, compression="zstd") as writer:
            writer.write_table(pa.Table.from_pylist(listed, schema=QUARANTINE))
            for unit in range(self._num_units):
                with self._parts.reading(f"refused-{unit:05d}.parquet") as part:
                    table = pq.read_table(part)
                counts.update(table["reason"].to_pylist())
                if len(table):
                    writer.write_table(table)
        return counts

    def _write_documents(self, directory: Path, selection: Selection, found: Decontamination) -> dict[str, Any]:
        keep = selection.keep & ~found.removed
        documents: Counter[str] = Counter()
        by_source: Counter[str] = Counter()
        bytes_by_source: Counter[str] = Counter()
        units = [(number, selection.of_unit(keep, number)) for number in range(self._num_units)]
        filled = [number for number, of_unit in units if of_unit.any()]
        job = WriteUnitJob(self._parts)
        for counts in run_units(self._workers, job, [units[number] for number in filled], self._parts, "written"):
            documents.update(counts["documents"])
            by_source.update(counts["by_source"])
            bytes_by_source.update(counts["bytes_by_source"])
        self._refuse_one_sided(documents)
        for place, number in enumerate(filled):
            self._parts.take(f"documents-{number:05d}.parquet", directory / part_name(place, len(filled)))
        kept = selection.facts[keep]
        return {
            "num_documents": documents.total(),
            "num_train": documents["train"],
            "num_heldout": documents["heldout"],
            "num_bytes": int(kept["num_bytes"].sum()),
            "num_works_train": len(np.unique(kept["work"][~kept["heldout"]])),
            "num_works_heldout": len(np.unique(kept["work"][kept["heldout"]])),
            "sources": {
                source.label: {"documents": by_source[source.label], "bytes": bytes_by_source[source.label]}
                for source in self._params.sources
            },
        }

    def _refuse_unusable(self, selection: Selection, quarantined: Counter[str], skipped: Counter[str]) -> None:
        """UserError where nothing could be read, or too little of it."""
        told = ", ".join(f"{n} {reason}" for reason, n in sorted(quarantined.items()))
        num_refused = quarantined.total()
        if not len(selection.facts):
            where = "; ".join(f"{without_secrets(s.uri)} ({', '.join(s.include)})" for s in self._params.sources)
            raise UserError(
                f"The corpus is empty: {where} matched {self._corpus.num_files} files, of which {num_refused} inputs were "
                f"refused{f' ({told})' if told else ''}, {skipped['short']} were shorter than min_bytes and "
                f"{skipped['language']} in another language; correct corpus.sources or their include patterns."
            )
        num_inputs = len(selection.facts) + num_refused + skipped.total()
        share = num_refused / num_inputs
        if share > self._params.max_quarantined_fraction:
            raise UserError(
                f"{num_refused} of {num_inputs} inputs ({share:.0%}) cannot be read ({told}{self._first_refused()}), more "
                f"than corpus.max_quarantined_fraction {self._params.max_quarantined_fraction}: mend or exclude them, or "
                "raise that limit."
            )

    def _first_refused(self) -> str:
        for refused in self._corpus.refused:
            return f"; the first is {refused.source_uri}: {refused.detail}"
        for unit in range(self._num_units):
            with self._parts.reading(f"refused-{unit:05d}.parquet") as part:
                for row in pq.read_table(part).slice(0, 1).to_pylist():
                    return f"; the first is {row['source_uri']}: {row['detail']}"
        return ""

    def _refuse_one_sided(self, documents: Counter[str]) -> None:
        """UserError where training or evaluation would have no document."""
        params = self._params
        for side, name, change in (("heldout", "held-out", "raise"), ("train", "training", "lower")):
            if not documents[side]:
                raise UserError(
                    f"The corpus has {documents.total()} documents and none is a {name} one with corpus.heldout_fraction "
                    f"{params.heldout_fraction} and split_seed {params.split_seed}: {change} heldout_fraction, take another "
                    "split_seed, or choose a finer work_by."
                )


def _write_batches(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch | pa.Table]) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write(batch)
