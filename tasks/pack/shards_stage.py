"""Prepare: documents become chunks, and chunks become rows in Arrow shards; held-out rows go to heldout/.

    data-00000-of-00003.arrow      rows for training, and in heldout/ those for evaluation
    chunks-00000-of-00012.parquet  where every chunk is from, one file for each part of the documents
    ledger.json                    the ledger of ingest, continued up to the places in rows
    README.md                      the data card, as the page of a data set on the hub
    quarantine.parquet             with instruction data: conversations that were left out, and why
    tokenizer/                     what the rows were tokenized with

Workers chunk one part of the documents at a time and write one shard at a time, so both have the same bytes for any number
of workers. In between, all rows are planned here from the sequences' lengths alone. With `retrieval.share`, the documents of
`tasks.retrieval` are further sequences, each in a row of its own: see `retrieved.py`. Conversations of instruction data are
sequences of whole documents, of which only the answers weigh: see `conversations.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_schemas.data_card import data_card, hub_page
from data_schemas.documents import part_names
from data_schemas.errors import UserError
from data_schemas.ledger import Ledger, ledger_of
from data_schemas.manifest import Manifest, stage_digest
from data_schemas.params import PackingParams, PipelineParams
from data_schemas.parts import Parts
from data_schemas.progress import ProgressCallback, message
from data_schemas.storage import Artifact, Storage
from tasks.kept_units import KeptUnits
from tasks.pack.accounting import prepare_ledger
from tasks.pack.chunk_job import CHUNK_PARTS, TOKENIZER_FILE, ChunkJob
from tasks.pack.composition import composition, openings
from tasks.pack.conversation_sequences import ConversationSequences, conversation_rules
from tasks.pack.counted import Counted, add
from tasks.pack.packer import PackingPlan, plan_rows
from tasks.pack.retrieval_sequences import RetrievalSequences
from tasks.pack.seen import measure_seen
from tasks.pack.sequences import SPLITS, Entries, SequenceReader, read_entries
from tasks.pack.settings import check_chunking, check_packing, chunking_files, source_shares
from tasks.pack.shard_job import ShardJob
from tasks.pack.shards import shard_name, split_into_shards, write_dataset_files
from tasks.pack.token_weights import WeightReader
from tasks.retrieval import retrieval_stage
from tasks.tokens.special_tokens import special_tokens
from tasks.work import Workers, WorkersFor, run_units

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CODE_VERSION = 6
_PROGRESS_EVERY_BYTES = 20_000_000


def determining(params: PipelineParams) -> dict[str, Any]:
    """The parameters that decide what this stage makes of its documents, for the name of a job."""
    return {group: getattr(params, group).recorded() for group in ("chunking", "packing", "model", "retrieval")}


def run(
    params: PipelineParams, storage: Storage, documents: Artifact, workers_for: WorkersFor, progress: ProgressCallback
) -> Artifact:
    """Make, or find, the `shards` artifact, and before it the `retrieval` artifact if `retrieval.share` asks for one.

    Raises UserError if no training document is as long as the target, or no retrieval document can be made.
    """
    from tasks.model.base_model import base_fingerprint, load_tokenizer

    check_packing(params)
    recorded = params.chunking.model_dump(mode="json", exclude={"embedding_model", "spacy_pipeline"})
    of_chunks = {"chunking": recorded, "target_length": params.row_tokens}
    parents = {"documents": documents.digest, "tokenizer": base_fingerprint(params.model)} | chunking_files(params.chunking)
    chunked = of_chunks | {"max_waste": params.packing.max_waste}  # packings that differ in more start from the same chunks
    if params.corpus.has_instructions:
        chunked |= {"long_conversations": params.packing.long_conversations}
    labels = [source.label for source in params.corpus.sources]
    making = [CODE_VERSION, chunked, labels, {name: digest for name, digest in parents.items() if name != "documents"}]
    retrieval = None
    if params.retrieval.share:
        retrieval = retrieval_stage.run(params, storage, documents, workers_for, progress)
        parents |= {"retrieval": retrieval.digest}
    parts_key = stage_digest("chunk", chunked, CODE_VERSION, parents)

    def make(directory: Path) -> dict[str, Any]:
        check_chunking(params.chunking)
        num_bytes = documents.manifest.summary["num_bytes"]
        kept = KeptUnits(storage.root, "chunks", CHUNK_PARTS, making)
        contents = _contents(documents.manifest) if params.corpus.keep_units else {}
        with workers_for(num_bytes) as workers, storage.parts(parts_key, workers.on_other_machines) as parts:
            if num_kept := kept.adopt(contents, parts):
                progress(
                    message(f"prepare: {num_kept:,} of {len(contents):,} parts of the documents were chunked by an earlier run")
                )
            tokenizer = load_tokenizer(params.model)
            summary = _Preparation(params, tokenizer, documents, retrieval, parts, workers, progress).write(directory)
            if contents:
                kept.keep(parts_key, contents, parts)
            return summary

    artifact = storage.build(
        "shards",
        stage="prepare",
        params=of_chunks
        | {
            "packing": params.packing.recorded(exclude={"warn_dropped_share", "row_length"}),
            "sources": [asdict(share) for share in source_shares(params)],
        },
        code_version=CODE_VERSION,
        parents=parents,
        make=make,
    )
    storage.drop_parts(parts_key, was_finished=artifact.reused)
    done = artifact.manifest.summary
    for warning in done["warnings"]:
        progress(message(f"prepare: warning: {warning}"))
    progress(
        message(
            f"prepare: {done['num_rows']:,} rows of up to {params.row_tokens:,} tokens, {done['num_tokens']:,} tokens, "
            f"{done['waste']:.2%} waste, {done['num_heldout_rows']:,} held-out rows"
            + (", already finished" if artifact.reused else "")
        )
    )
    return artifact


def _contents(documents: Manifest) -> dict[int, str]:
    """The digest of each part of the documents, by number."""
    digests = {entry.path: entry.sha256 for entry in documents.files}
    return {number: digests[name] for number, name in enumerate(part_names(documents))}


class _Preparation:
    """One making of the `shards` artifact."""

    def __init__(
        self,
        params: PipelineParams,
        tokenizer: PreTrainedTokenizerFast,
        documents: Artifact,
        retrieval: Artifact | None,
        parts: Parts,
        workers: Workers,
        progress: ProgressCallback,
    ) -> None:
        self._params, self._tokenizer, self._documents = params, tokenizer, documents
        self._parts, self._workers, self._progress = parts, workers, progress
        self._names = part_names(documents.manifest)
        self._target = params.row_tokens
        self._row_parameter = "packing.row_length" if params.packing.row_length else "model.target_length"
        self._special = special_tokens(tokenizer)
        self._budget = min(params.chunk_tokens, self._target - self._special.num)
        labels = tuple(source.label for source in params.corpus.sources)
        self._retrieved = RetrievalSequences(retrieval, params.retrieval, len(self._names), len(labels), self._special.num)
        self._conversations = ConversationSequences(params, conversation_rules(params, tokenizer))
        self._corpus_labels, self._labels = labels, (*labels, *self._retrieved.labels)
        self._num_parts = len(self._names) + len(self._retrieved.names)
        self._counted: Counted = {}  # filled by _chunk, and with retrieval documents

    def write(self, directory: Path) -> dict[str, Any]:
        """Fill `directory`; returns the summary."""
        counts = self._chunk()
        self._conversations.refuse_none()
        # No conversation is cut into rows, so hardly one fills a row: more than half of one is long enough.
        if counts["longest"] < self._target and self._conversations.longest <= self._target // 2:
            raise UserError(
                f"The corpus is too short for the target: the longest training document has {counts['longest']} tokens and "
                f"{self._row_parameter} is {self._target}, so add longer documents or lower the target."
            )
        self._progress(message("prepare: planning rows"))
        num_parts = self._num_parts
        self._retrieved.take(self._parts, self._workers, self._counted)
        entries, held = (read_entries(self._parts, num_parts, split) for split in SPLITS)
        corpus = entries.first(len(entries.lengths) - self._retrieved.num_documents)
        packing, shares = self._params.packing, source_shares(self._params)
        train = plan_rows(corpus.lengths, self._target, packing, corpus.sources, shares, corpus.document_lengths)
        of_heldout = PackingParams(window_chunks=packing.window_chunks, min_bucket=packing.min_bucket)
        heldout = plan_rows(held.lengths, self._target, of_heldout, document_lengths=held.document_lengths)
        _refuse_no_rows(train, heldout)
        train, told = self._retrieved.mixed(train, entries.lengths[len(corpus.lengths) :], packing.seed)
        ledger = self._ledger(entries, train)
        ledger.write(directory)
        self._write_shards(train, entries.lengths, directory, "train")
        self._write_shards(heldout, held.lengths, directory / "heldout", "heldout")
        reader = SequenceReader(self._parts, num_parts, "train")
        samples = list(openings(self._labels, entries, train.uses, reader, self._tokenizer, packing.seed))
        self._conversations.write_quarantine(directory)
        seen = self._measure_seen(train, directory)
        for number in range(num_parts):
            self._parts.take(f"chunks-{number:05d}.parquet", directory / f"chunks-{number:05d}-of-{num_parts:05d}.parquet")
        (directory / "tokenizer").mkdir()
        self._parts.take(TOKENIZER_FILE, directory / "tokenizer" / TOKENIZER_FILE)
        summary: dict[str, Any] = {
            "num_chunks": counts["chunks"],
            "num_fragments": counts["fragments"],
            "num_rows": train.num_rows,
            "num_tokens": train.num_tokens,
            "waste": train.waste,
            "warnings": [*train.warnings, *self._conversations.warnings()],
            "ledger": ledger.to_json(),
            "composition": composition(self._labels, self._counted),
            "samples": samples,
            "buckets": [bucket.to_json() for bucket in train.buckets],
            "heldout_buckets": [bucket.to_json() for bucket in heldout.buckets],
            "sources": [share.to_json() for share in train.sources],
            "by_length": [share.to_json() for share in train.by_length],
            "num_heldout_rows": heldout.num_rows,
            "num_heldout_tokens": heldout.num_tokens,
            "heldout_waste": heldout.waste,
            "longest_document_tokens": max(counts["longest"], self._conversations.longest),
            "chunk_tokens": self._budget,
            "bos_token_id": self._special.bos,
            "eos_token_id": self._special.eos,
            "heldout_seen": seen,
        }
        if told:
            summary["retrieval"] = told
        if instructions := self._conversations.report(train, entries):
            summary["instructions"] = instructions
        if card := data_card(self._target, summary):
            (directory / "README.md").write_text(hub_page(card), encoding="utf-8")
        return summary

    def _ledger(self, entries: Entries, plan: PackingPlan) -> Ledger:
        ingested = ledger_of(self._documents.manifest.summary) or Ledger(lines=())
        ingested = self._retrieved.in_ledger(ingested, self._labels, self._counted)
        left_out = self._conversations.left_out
        return prepare_ledger(ingested, self._labels, self._counted, self._special, entries, plan, left_out)

    def _chunk(self) -> dict[str, int]:
        with self._parts.writing(TOKENIZER_FILE) as path:
            path.write_text(self._tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        job = ChunkJob(
            self._documents.as_parts(),
            self._parts,
            self._params.chunking.model_copy(update={"max_tokens": self._budget}),
            self._special,
            self._corpus_labels,
            self._target - self._special.num,
            self._params.packing.max_waste,
            self._conversations.rules,
        )
        total = {"documents": 0, "chunks": 0, "fragments": 0, "bytes": 0, "longest": 0}
        for part, counts in enumerate(run_units(self._workers, job, list(enumerate(self._names)), self._parts, "chunked")):
            self._conversations.take(part, counts)
            before = total["bytes"] // _PROGRESS_EVERY_BYTES
            longest = max(total["longest"], counts["longest"])
            add(self._counted, counts["groups"])
            total = {name: total[name] + counts[name] for name in total} | {"longest": longest}
            if total["bytes"] // _PROGRESS_EVERY_BYTES > before:
                self._progress(message(f"prepare: {total['bytes'] / 1e6:,.0f} MB in {total['chunks']:,} chunks"))
        self._progress(message(f"prepare: {total['documents']:,} documents in {total['chunks']:,} chunks"))
        return total

    def _measure_seen(self, train: PackingPlan, directory: Path) -> dict[str, Any]:
        documents = self._documents.as_parts()
        seen = measure_seen(
            documents,
            self._names,
            self._parts,
            train.members,
            _plan_key(train),
            self._workers,
            directory,
            self._retrieved.place,
            self._retrieved.names,
        )
        worst = "".join(f", most of {row['source_uri']}: {row['share']:.1%}" for row in seen["worst"][:1])
        self._progress(message(f"prepare: {seen['share']:.2%} of the held-out text is in training rows{worst}"))
        return seen

    def _write_shards(self, plan: PackingPlan, lengths: np.ndarray, directory: Path, split: str) -> None:
        directory.mkdir(exist_ok=True)
        spans = split_into_shards(plan, lengths, self._params.packing.shard_megabytes)
        names = [shard_name(number, len(spans)) for number in range(len(spans))]
        units = [(name, plan.rows(*span)) for name, span in zip(names, spans, strict=True)]
        plan_key = _plan_key(plan)
        weights = self._weights(split)
        job = ShardJob(self._parts, self._num_parts, split, plan_key, weights)
        hashes = []
        for number, digest in enumerate(run_units(self._workers, job, units, self._parts, f"shard-{split}-{plan_key}")):
            hashes.append(digest)
            self._parts.take(job.part_name(names[number]), directory / names[number])
            self._progress(message(f"prepare: {split} shard {number + 1} of {len(names)}"))
        write_dataset_files(directory, names, hashes, split, weights is not None)

    def _weights(self, split: str) -> WeightReader | None:
        """The loss weights of the split's rows; None if all are 1."""
        retrieved = self._retrieved.parts if split == "train" else ()
        weighted, in_full = (*self._conversations.parts, *retrieved), (*self._conversations.in_full, *retrieved)
        return WeightReader(self._parts, split, weighted, in_full) if weighted else None


def _plan_key(plan: PackingPlan) -> str:
    return hashlib.sha256(plan.members.tobytes() + plan.row_ends.tobytes()).hexdigest()[:12]


def _refuse_no_rows(train: PackingPlan, heldout: PackingPlan) -> None:
    if not train.num_rows:
        raise UserError(
            "No training row is left: packing.bucket_token_budgets or bucket_repeats leave every chunk out, raise them."
        )
    if not heldout.num_rows:
        raise UserError(
            "The held-out documents hold no token at all: raise corpus.heldout_fraction or take another split_seed."
        )
