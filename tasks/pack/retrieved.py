"""Retrieval documents in the packing: they become sequences beside those of the corpus, each fills a row, and they have loss weights.

The parts of the retrieval artifact continue the numbers of the corpus' parts. Their weights are in files of `tasks.pack.token_weights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.parts import Parts
from data_schemas.tables import CHUNKS
from tasks.pack.counted import Counted, Counts, add, to_json
from tasks.pack.packer import PackingPlan, reordered
from tasks.pack.sequences import SequenceWriter
from tasks.pack.token_weights import weights_name

SOURCE = "retrieval/{}"  # in ledger and card; no label of a source has a slash
_BATCH_ROWS = 16


@dataclass(frozen=True)
class TakeRetrieval:
    """Makes sequences of one part of the retrieval artifact; a unit is its number and file.

    Writes what `ChunkJob` writes, and the weights. `sources` are the numbers of the families' sources. Returns the counts of
    `tasks.pack.counted` as `groups`, and `documents`: the family, answer tokens and questions of each document.
    """

    retrieval: Parts
    parts: Parts
    sources: dict[str, int]
    num_special: int

    def __call__(self, unit: tuple[int, str]) -> dict[str, Any]:
        number, name = unit
        counted: Counted = {}
        documents: list[tuple[str, int, int]] = []
        with (
            self.retrieval.reading(name) as path,
            self.parts.writing(f"chunks-{number:05d}.parquet") as chunks_path,
            pq.ParquetWriter(chunks_path, CHUNKS, compression="zstd") as writer,
            self.parts.writing(weights_name("train", number)) as weights_path,
            weights_path.open("wb") as weights,
            SequenceWriter(self.parts, number) as sequences,
        ):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS):
                rows = batch.to_pylist()
                for row in rows:
                    ids, num_bytes, source = row["input_ids"], len(row["text"].encode()), self.sources[row["family"]]
                    sequences.append("train", row["doc_id"], 0, source, ids, num_bytes, len(ids))
                    weights.write(np.asarray(row["loss_weights"], "<f4").tobytes())
                    counts = Counts.of_document(num_bytes, len(ids) - self.num_special, 1, False)
                    add(counted, [["train", source, row["licence"], row["language"] or "", *counts]])
                    documents.append((row["family"], sum(row["is_answer"]), len(row["answered"])))
                writer.write_table(pa.Table.from_pylist([_chunk(row, self.num_special) for row in rows], schema=CHUNKS))
        return {"groups": to_json(counted), "documents": documents}


def _chunk(row: dict[str, Any], num_special: int) -> dict[str, Any]:
    return {
        "chunk_id": f"{row['doc_id']}:0",
        "doc_id": row["doc_id"],
        "index": 0,
        "source": SOURCE.format(row["family"]),
        "previous_chunk_id": None,
        "next_chunk_id": None,
        "char_start": 0,
        "char_end": len(row["text"]),
        "num_tokens": len(row["input_ids"]) - num_special,
        "heading_path": [],
        "split": "train",
    }


def with_retrieval(
    plan: PackingPlan, lengths: np.ndarray, ranks: np.ndarray, share: float, seed: int
) -> tuple[PackingPlan, np.ndarray]:
    """The plan with rows of retrieval documents, and int64 [num_taken], which documents those are.

    Args:
        plan: of the corpus' sequences.
        lengths: int [num_documents], tokens of the retrieval documents, each of which fills a row.
        ranks: int [num_documents], their order: the first ones are taken, so many that they are `share` of all tokens.

    UserError if the share is less than one document. With too few documents all are taken once, and a warning says so.
    """
    wanted = round(share / (1 - share) * plan.num_tokens / plan.target_length)
    if not wanted:
        raise UserError(
            f"retrieval.share {share} of {plan.num_tokens:,} packed tokens is less than one document of {plan.target_length:,} tokens: "
            "raise it, add text, or set it to 0."
        )
    num_corpus = len(plan.uses)
    taken = np.sort(np.argsort(ranks, kind="stable")[:wanted])
    members = np.concatenate([plan.members, num_corpus + taken])
    first = int(plan.row_ends[-1]) if plan.num_rows else 0
    row_ends = np.concatenate([plan.row_ends, first + 1 + np.arange(len(taken))])
    members, row_ends = reordered(members, row_ends, seed)
    used = np.zeros(len(lengths), np.int32)
    used[taken] = 1
    num_tokens = plan.num_tokens + int(lengths[taken].sum(dtype=np.int64))
    warnings = plan.warnings
    if len(taken) < wanted:
        reached = (num_tokens - plan.num_tokens) / num_tokens
        warnings = (
            *warnings,
            f"retrieval documents are {reached:.1%} of the packed tokens, not {share:.1%}: only {len(taken):,} were made from the text "
            "read once, and none is repeated",
        )
    mixed = replace(
        plan,
        members=members,
        row_ends=row_ends,
        uses_budgeted=np.concatenate([plan.uses_budgeted, np.ones(len(lengths), np.int32)]),
        uses=np.concatenate([plan.uses, used]),
        warnings=warnings,
        num_tokens=num_tokens,
    )
    return mixed, taken


def retrieval_report(
    documents: Sequence[tuple[str, int, int]], taken: np.ndarray, share: float, plan: PackingPlan, not_made: dict[str, Any]
) -> dict[str, Any]:
    """For manifest and card: the share wanted and reached, and documents, tokens, answer tokens and questions of each family."""
    families: dict[str, dict[str, int]] = {}
    for number in taken.tolist():
        family, answers, questions = documents[number]
        of_family = families.setdefault(family, {"documents": 0, "tokens": 0, "answer_tokens": 0, "questions": 0})
        for name, value in zip(of_family, (1, plan.target_length, answers, questions), strict=True):
            of_family[name] += value
    tokens = sum(of_family["tokens"] for of_family in families.values())
    return {
        "wanted": share,
        "reached": tokens / plan.num_tokens,
        "families": [{"family": family, **families[family]} for family in sorted(families)],
        "not_made": not_made,
    }


def ranks_of(counts: Sequence[int]) -> np.ndarray:
    """int64 [num_documents]: parts have `counts` documents; the first of every part come first, then the second ones."""
    places = np.concatenate([np.arange(count) for count in counts]) if counts else np.empty(0, np.int64)
    order = np.argsort(places, kind="stable")
    ranks = np.empty(len(places), np.int64)
    ranks[order] = np.arange(len(places))
    return ranks
