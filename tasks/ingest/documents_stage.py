"""Ingest: a corpus becomes the `documents` artifact.

    documents-00000-of-00012.parquet  what is trained and evaluated on, in the order of the corpus
    quarantine.parquet                what could not be read, and why
    changes.parquet                   what was replaced in documents: undecodable bytes, personal data
    duplicates.parquet                documents that were removed as duplicates, and which one was kept instead
    excerpts.parquet                  pairs of documents of which one repeats a passage of the other
    contamination.parquet             training documents that contain evaluated text
    shared_text.parquet               held-out documents with text that many training documents share
    ledger.json                       what became of every input, by source

The package's docstring lists the steps. A worker holds one row group of text in memory; this process holds about 250 bytes
a document and 15 bytes an n-gram of held-out text.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.addresses import without_secrets
from data_schemas.documents import part_name
from data_schemas.errors import UserError
from data_schemas.manifest import stage_digest
from data_schemas.params import CorpusParams, PipelineParams
from data_schemas.parts import Parts
from data_schemas.progress import ProgressCallback, message
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import CHANGES, CONTAMINATION, DUPLICATES, EXCERPTS, QUARANTINE, SHARED_TEXT
from tasks.ingest.accounting import add_reasons, by_reason, ingest_ledger
from tasks.ingest.corpus_units import Corpus, plan_corpus
from tasks.ingest.decontamination.decontaminate import Decontamination, decontaminate, report_rows
from tasks.ingest.decontamination.evaluated_prompts import Prompt, evaluated_prompts
from tasks.ingest.duplicates.excerpts import excerpt_rows, find_excerpts
from tasks.ingest.duplicates.selection import Selection, duplicate_rows, select
from tasks.ingest.refusals import QUARANTINE_FILE, refuse_empty, refuse_finished, refuse_one_sided, refuse_quarantined
from tasks.ingest.survey import READ_PARTS, ReadUnitJob
from tasks.ingest.write_job import WriteUnitJob
from tasks.kept_units import KeptUnits
from tasks.work import Workers, WorkersFor, run_units

CODE_VERSION = 4


def determining(params: PipelineParams) -> dict[str, Any]:
    """The parameters that decide what this stage makes, for the name of a job."""
    return {"corpus": params.corpus.model_dump(mode="json", exclude={"keep_units"})}


def run(params: PipelineParams, storage: Storage, workers_for: WorkersFor, progress: ProgressCallback) -> Artifact:
    """Make, or find, the `documents` artifact. Raises UserError for a corpus that cannot be trained on."""
    prompts = evaluated_prompts(params)
    progress(message("ingest: listing and hashing the corpus"))
    leave_out = storage.remote.uri if storage.remote else storage.root
    corpus = plan_corpus(params.corpus, leave_out)

    inputs: dict[str, Any] = {
        "stage": "ingest",
        "params": _recorded(params.corpus),
        "code_version": CODE_VERSION,
        "parents": {"corpus": corpus.fingerprint} | _fingerprint(prompts),
    }
    parts_key = stage_digest(**inputs)

    def make(directory: Path) -> dict[str, Any]:
        with workers_for(corpus.num_bytes) as workers, storage.parts(parts_key, workers.on_other_machines) as parts:
            kept = KeptUnits(storage.root, "read", READ_PARTS, [CODE_VERSION, _reading(inputs["params"])])
            contents = {unit.index: unit.content for unit in corpus.units if unit.content} if params.corpus.keep_units else {}
            if num_kept := kept.adopt(contents, parts):
                progress(message(f"ingest: {num_kept:,} of {len(corpus.units):,} units were read by an earlier run"))
            summary = _Ingestion(params.corpus, corpus, prompts, parts, workers, progress).write(directory)
            if plan_corpus(params.corpus, leave_out).fingerprint != corpus.fingerprint:
                raise UserError("The corpus changed while it was being read: run again when nothing writes to it.")
            if contents:
                kept.keep(parts_key, contents, parts)
        return summary

    artifact = storage.build("documents", make=make, **inputs)
    if artifact.reused:
        refuse_finished(params.corpus, artifact.manifest.summary, artifact.as_parts())
    storage.drop_parts(parts_key, was_finished=artifact.reused)
    done = artifact.manifest.summary
    progress(
        message(
            f"ingest: {done['num_documents']:,} documents ({done['num_heldout']:,} held out), {done['num_bytes']:,} bytes"
            + (", already finished" if artifact.reused else "")
        )
    )
    return artifact


def _recorded(params: CorpusParams) -> dict[str, Any]:
    """Parameters that determine the documents, without the passwords and signatures that URIs can hold.

    Left out are the weights of sources, which only packing uses, and what changes no document: the limit on unreadable inputs,
    and whether units are kept.
    """
    recorded: dict[str, Any] = params.model_dump(
        mode="json",
        exclude={"sources": {"__all__": {"weight", "max_repeats"}}, "max_quarantined_fraction": True, "keep_units": True},
    )
    for source in recorded["sources"]:
        source["uri"] = without_secrets(source["uri"])
    recorded["decontamination"]["prompt_files"] = [without_secrets(name) for name in params.decontamination.prompt_files]
    return recorded


def _reading(recorded: dict[str, Any]) -> dict[str, Any]:
    """The parameters that decide what a unit's parts hold: all but those of later steps. The sources are in the units' digests."""
    later = {
        "near_duplicates": ("similarity",),
        "excerpts": ("remove", "share", "max_documents"),
        "decontamination": tuple(name for name in recorded["decontamination"] if name not in ("enabled", "ngram_words")),
    }
    return {
        name: {key: one for key, one in value.items() if key not in later[name]} if name in later else value
        for name, value in recorded.items()
        if name != "sources"
    }


def _fingerprint(prompts: Sequence[Prompt]) -> dict[str, str]:
    """The evaluation prompts' content as another parent of the documents; empty without prompts."""
    if not prompts:
        return {}
    texts = json.dumps([[prompt.name, prompt.text] for prompt in prompts])
    return {"prompts": hashlib.sha256(texts.encode()).hexdigest()}


class _Ingestion:
    """One making of the `documents` artifact."""

    def __init__(
        self,
        params: CorpusParams,
        corpus: Corpus,
        prompts: Sequence[Prompt],
        parts: Parts,
        workers: Workers,
        progress: ProgressCallback,
    ) -> None:
        self._params, self._corpus, self._prompts = params, corpus, prompts
        self._parts, self._workers, self._progress = parts, workers, progress
        self._num_units = len(corpus.units)

    def write(self, directory: Path) -> dict[str, Any]:
        """Fill `directory`; returns the summary."""
        filtered = self._read()
        refused = self._write_quarantine(directory / QUARANTINE_FILE)
        skipped, quarantined = by_reason(filtered), by_reason(refused)
        changed = self._write_changes(directory / "changes.parquet")
        scratch = Path(directory, ".scratch")
        scratch.mkdir()
        selection = select(self._params, self._parts, self._num_units, scratch)
        if not len(selection.facts):
            refuse_empty(self._params, self._corpus.num_files, quarantined, skipped)
        num_readable = len(selection.facts) + skipped.total()
        refuse_quarantined(self._params, num_readable, quarantined, Parts(str(directory)))
        _write_batches(directory / "duplicates.parquet", DUPLICATES, duplicate_rows(selection, self._parts, self._num_units))
        num_near = int((selection.kept_by >= 0).sum() - selection.is_exact.sum())
        self._progress(
            message(f"ingest: {int(selection.is_exact.sum()):,} duplicates and {num_near:,} near-duplicates removed")
        )
        excerpts = find_excerpts(self._params.excerpts, self._parts, selection, self._workers)
        _write_batches(directory / "excerpts.parquet", EXCERPTS, excerpt_rows(excerpts, selection, self._parts))
        if len(excerpts.later):
            told = (
                f"{int(excerpts.removed.sum()):,} documents removed for it" if self._params.excerpts.remove else "none removed"
            )
            self._progress(message(f"ingest: {len(excerpts.later):,} pairs of documents share a passage, {told}"))
        keep = selection.keep & ~excerpts.removed
        found = decontaminate(self._params.decontamination, self._prompts, self._parts, selection, keep, self._workers, scratch)
        for name, schema in (("contamination", CONTAMINATION), ("shared_text", SHARED_TEXT)):
            rows = report_rows(name, self._parts, self._num_units) if self._params.decontamination.enabled else iter(())
            _write_batches(directory / f"{name}.parquet", schema, rows)
        self._tell_contamination(found)
        summary = self._write_documents(directory, selection, keep & ~found.removed)
        shutil.rmtree(scratch)
        labels = [source.label for source in self._params.sources]
        unit_sources = [unit.source_index for unit in self._corpus.units]
        ledger = ingest_ledger(labels, unit_sources, refused, filtered, selection, excerpts.removed, found.removed)
        ledger.write(directory)
        return summary | {
            "num_duplicates": int(selection.is_exact.sum()),
            "num_near_duplicates": num_near,
            "num_excerpts": len(excerpts.later),
            "num_excerpts_removed": int(excerpts.removed.sum()),
            "num_contaminated": int(found.removed.sum()),
            "num_heldout_given_up": found.num_given_up,
            "num_files_unmatched": self._corpus.num_unmatched,
            "skipped": {"short": 0, "language": 0} | dict(sorted(skipped.items())),
            "num_prompts_without_effect": len(found.short_prompts) + len(found.ignored_prompts),
            "quarantined": dict(sorted(quarantined.items())),
            "changed": dict(sorted(changed.items())),
            "ledger": ledger.to_json(),
        }

    def _read(self) -> dict[tuple[int, str], tuple[int, int]]:
        self._progress(message(f"ingest: reading {self._corpus.num_files:,} files in {self._num_units:,} units"))
        filtered: dict[tuple[int, str], tuple[int, int]] = {}
        job = ReadUnitJob(self._params, self._parts)
        every = max(1, self._num_units // 20)
        for number, of_unit in enumerate(run_units(self._workers, job, self._corpus.units, self._parts, "read"), 1):
            add_reasons(filtered, self._corpus.units[number - 1].source_index, of_unit)
            if number % every == 0 and self._num_units > every:
                self._progress(message(f"ingest: {number:,} of {self._num_units:,} units read"))
        return filtered

    def _tell_contamination(self, found: Decontamination) -> None:
        if self._params.decontamination.enabled:
            self._progress(
                message(f"ingest: {int(found.removed.sum()):,} training documents removed because they contain evaluated text")
            )
        if found.num_given_up:
            self._progress(
                message(
                    f"ingest: {found.num_given_up:,} held-out documents are copied in too much training text to remove it: see "
                    "shared_text.parquet"
                )
            )
        for names, why in ((found.short_prompts, "are shorter than 8 words"), (found.ignored_prompts, "are boilerplate")):
            if names:
                self._progress(
                    message(f"ingest: {len(names):,} prompts remove nothing because they {why}: {', '.join(names[:5])}")
                )

    def _write_quarantine(self, path: Path) -> dict[tuple[int, str], tuple[int, int]]:
        listed = [{name: getattr(r, name) for name in QUARANTINE.names} for r in self._corpus.refused]
        counts: dict[tuple[int, str], tuple[int, int]] = {}
        for refused, source in zip(self._corpus.refused, self._corpus.refused_by, strict=True):
            add_reasons(counts, source, {refused.reason: (1, 0)})
        with pq.ParquetWriter(path, QUARANTINE, compression="zstd") as writer:
            writer.write_table(pa.Table.from_pylist(listed, schema=QUARANTINE))
            for unit in range(self._num_units):
                with self._parts.reading(f"refused-{unit:05d}.parquet") as part:
                    table = pq.read_table(part)
                reasons = Counter(table["reason"].to_pylist())
                add_reasons(counts, self._corpus.units[unit].source_index, {r: (n, 0) for r, n in reasons.items()})
                if len(table):
                    writer.write_table(table)
        return counts

    def _write_changes(self, path: Path) -> Counter[str]:
        """Number of places by kind."""
        counts: Counter[str] = Counter()
        with pq.ParquetWriter(path, CHANGES, compression="zstd") as writer:
            for unit in range(self._num_units):
                with self._parts.reading(f"changes-{unit:05d}.parquet") as part:
                    table = pq.read_table(part)
                for kind, num_places in zip(table["kind"].to_pylist(), table["num_places"].to_pylist(), strict=True):
                    counts[kind] += num_places
                if len(table):
                    writer.write_table(table)
        return counts

    def _write_documents(self, directory: Path, selection: Selection, keep: np.ndarray) -> dict[str, Any]:
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
        refuse_one_sided(self._params, documents)
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


def _write_batches(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch | pa.Table]) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write(batch)
