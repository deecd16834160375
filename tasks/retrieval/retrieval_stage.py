"""The stage between ingest and pack: retrieval documents from the training documents.

    retrieval-00000-of-00012.parquet  RETRIEVAL, one file for each part of the documents

It makes about as many as `retrieval.share` needs of the whole corpus; pack takes as many of them as the share of what it packs.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from data_schemas.documents import part_names
from data_schemas.errors import UserError
from data_schemas.manifest import stage_digest
from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from data_schemas.progress import ProgressCallback, message
from data_schemas.storage import Artifact, Storage
from tasks.retrieval.make_job import TOKENIZER_FILE, RetrievalJob, retrieval_part
from tasks.retrieval.settings import check_retrieval, frame_of
from tasks.tokens.special_tokens import special_tokens
from tasks.work import Workers, WorkersFor, run_units

CODE_VERSION = 10
KIND = "retrieval"


def determining(params: PipelineParams) -> dict[str, Any]:
    """The parameters that decide what this stage makes of its documents, for the name of a job."""
    return {KIND: params.retrieval.model_dump(mode="json")}


def run(
    params: PipelineParams, storage: Storage, documents: Artifact, workers_for: WorkersFor, progress: ProgressCallback
) -> Artifact:
    """Make, or find, the `retrieval` artifact. UserError if a family cannot work with the rows, or no document can be made."""
    from tasks.model.base_model import base_fingerprint, load_tokenizer

    if not params.retrieval.share:
        raise ValueError("retrieval.share is 0: there is nothing to make")
    recorded = {"retrieval": params.retrieval.model_dump(mode="json"), "row_tokens": params.row_tokens}
    parents = {"documents": documents.digest, "tokenizer": base_fingerprint(params.model)}
    parts_key = stage_digest(KIND, recorded, CODE_VERSION, parents)

    def make(directory: Path) -> dict[str, Any]:
        tokenizer = load_tokenizer(params.model)
        check_retrieval(params, tokenizer)
        num_bytes = documents.manifest.summary["num_bytes"]
        with workers_for(num_bytes) as workers, storage.parts(parts_key, workers.on_other_machines) as parts:
            with parts.writing(TOKENIZER_FILE) as path:
                path.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
            special = special_tokens(tokenizer)
            chat = frame_of(params, tokenizer)
            job = RetrievalJob(documents.as_parts(), parts, params.retrieval, special, chat, params.row_tokens)
            return _write(job, part_names(documents.manifest), parts, workers, progress, directory)

    artifact = storage.build(KIND, stage=KIND, params=recorded, code_version=CODE_VERSION, parents=parents, make=make)
    storage.drop_parts(parts_key, was_finished=artifact.reused)
    done = artifact.manifest.summary
    for warning in done["warnings"]:
        progress(message(f"retrieval: warning: {warning}"))
    again = ", already finished" if artifact.reused else ""
    share = done["answer_share"]
    progress(
        message(
            f"retrieval: {done['num_documents']:,} documents of {params.row_tokens:,} tokens{again}; "
            f"answers have {share['reached']:.1%} of their loss ({share['wanted']:.1%} were asked for)"
        )
    )
    return artifact


def retrieval_names(artifact: Artifact) -> list[str]:
    """Names of the parts, in order."""
    return sorted(entry.path for entry in artifact.manifest.files if entry.path.startswith("retrieval-"))


def _write(
    job: RetrievalJob, names: list[str], parts: Parts, workers: Workers, progress: ProgressCallback, directory: Path
) -> dict[str, Any]:
    made = wanted = 0
    answer_shares = 0.0
    not_made: dict[str, Counter[str]] = {family: Counter() for family in job.params.trained_families}
    for number, counts in enumerate(run_units(workers, job, list(enumerate(names)), parts, "made")):
        made, wanted = made + counts["made"], wanted + counts["wanted"]
        answer_shares += counts["answer_shares"]
        for family, reasons in counts["not_made"].items():
            not_made[family].update(reasons)
        parts.take(retrieval_part(number), directory / f"retrieval-{number:05d}-of-{len(names):05d}.parquet")
        progress(message(f"retrieval: {made:,} documents from {number + 1:,} of {len(names):,} parts"))
    reasons = sum(not_made.values(), Counter())
    why = (
        f"most often: {reasons.most_common(1)[0][0]}"
        if reasons
        else "the text is used up"
        if made
        else "there is no training text"
    )
    if not made:
        raise UserError(
            f"No retrieval document of {job.row_tokens} tokens could be made of the training documents ({why}): "
            "add longer or more documents, choose other retrieval.families, or set retrieval.share to 0."
        )
    warnings = [] if made >= wanted else [f"{made:,} retrieval documents could be made, not {wanted:,} ({why})"]
    return {
        "num_documents": made,
        "num_wanted": wanted,
        "answer_share": {"wanted": job.params.answer_weight, "reached": round(answer_shares / made, 6)},
        "not_made": {family: dict(sorted(counts.items())) for family, counts in not_made.items() if counts},
        "warnings": warnings,
    }
