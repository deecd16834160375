"""Prepare: documents become chunks (chunks.parquet) and chunks become rows (Arrow shards, held-out rows in heldout/)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.params import PackingParams, PipelineParams
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import CHUNKS
from tasks.chunk.chunker import Chunker
from tasks.pack.packer import PackingPlan, plan_rows
from tasks.pack.shards import Sequence32, write_shards

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CODE_VERSION = 1
_DOCUMENTS_A_BATCH = 64
_PROGRESS_EVERY_BYTES = 20_000_000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SpecialTokens:
    """What is put at the start and the end of a document; None where the base was not trained with it."""

    bos: int | None
    eos: int | None

    @property
    def num(self) -> int:
        return (self.bos is not None) + (self.eos is not None)


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> SpecialTokens:
    """BOS if the tokenizer adds it by itself, EOS if there is one."""
    ids = tokenizer("a").input_ids
    adds_bos = tokenizer.bos_token_id is not None and bool(ids) and ids[0] == tokenizer.bos_token_id
    return SpecialTokens(tokenizer.bos_token_id if adds_bos else None, tokenizer.eos_token_id)


class Sequences:
    """All chunks of one split as sequences. Tokens lie in one file while the rows are written; the rest is in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self.chunk_ids: list[str] = []
        self._ends = [0]
        self._tokens: np.ndarray = np.empty(0, np.int32)

    def append(self, chunk_id: str, ids: list[int]) -> None:
        self._file.write(np.array(ids, np.int32).tobytes())  # ndarray.tofile would hide a full disk
        self.chunk_ids.append(chunk_id)
        self._ends.append(self._ends[-1] + len(ids))

    def lengths(self) -> np.ndarray:
        return np.diff(self._ends)

    def close(self) -> None:
        """No more sequences are appended; they can be loaded now."""
        self._file.close()
        if self._ends[-1]:
            self._tokens = np.memmap(self._path, np.int32, mode="r")

    def load(self, i: int) -> Sequence32:
        return Sequence32(self.chunk_ids[i], self._tokens[self._ends[i] : self._ends[i + 1]])

    def delete(self) -> None:
        self._file.close()
        self._tokens = np.empty(0, np.int32)
        self._path.unlink(missing_ok=True)


def run(params: PipelineParams, storage: Storage, documents: Artifact, progress: Progress) -> Artifact:
    """Make, or find, the `shards` artifact. Raises UserError where no training document is as long as the target."""
    from ray_jobs.finetune.base_model import base_fingerprint, load_tokenizer

    def make(directory: Path) -> dict[str, Any]:
        return write_rows(params, load_tokenizer(params.model), documents.path / "documents.parquet", directory, progress)

    artifact = storage.build(
        "shards",
        stage="prepare",
        params={
            "chunking": params.chunking.model_dump(mode="json"),
            "packing": params.packing.model_dump(mode="json"),
            "target_length": params.model.target_length,
        },
        code_version=CODE_VERSION,
        parents={"documents": documents.digest, "tokenizer": base_fingerprint(params.model)},
        make=make,
    )
    done = artifact.manifest.summary
    progress(
        f"prepare: {done['num_rows']:,} rows of up to {params.model.target_length:,} tokens, {done['num_tokens']:,} tokens, "
        f"{done['waste']:.2%} waste, {done['num_heldout_rows']:,} held-out rows"
        + (", found finished" if artifact.reused else "")
    )
    return artifact


def write_rows(
    params: PipelineParams, tokenizer: PreTrainedTokenizerFast, documents: Path, directory: Path, progress: Progress
) -> dict[str, Any]:
    """Chunk and pack `documents` (a DOCUMENTS parquet file) into `directory`; return the summary."""
    target = params.model.target_length
    special = special_tokens(tokenizer)
    budget = min(params.chunk_tokens, target - special.num)
    chunker = Chunker(tokenizer, params.chunking.model_copy(update={"max_tokens": budget}))
    sequences = {split: Sequences(directory / f"{split}.tokens") for split in ("train", "heldout")}
    try:
        longest = _write_chunks(chunker, special, documents, directory / "chunks.parquet", sequences, progress)
        if longest < target:
            raise UserError(
                f"The corpus is too short for the target: the longest training document has {longest} tokens and "
                f"model.target_length is {target}, so add longer documents or lower the target."
            )
        for of_split in sequences.values():
            of_split.close()
        progress("prepare: packing rows")
        train = plan_rows(sequences["train"].lengths(), target, params.packing)
        heldout = plan_rows(sequences["heldout"].lengths(), target, PackingParams(window_chunks=params.packing.window_chunks))
        _refuse_no_rows(train, heldout)
        for split, plan, folder in (("train", train, directory), ("heldout", heldout, directory / "heldout")):
            kept = sequences[split]
            write_shards(folder, plan.rows, kept.lengths(), kept.load, params.packing.shard_megabytes, split)
    finally:
        for of_split in sequences.values():
            of_split.delete()
    return {
        "num_chunks": len(sequences["train"].chunk_ids) + len(sequences["heldout"].chunk_ids),
        "num_rows": len(train.rows),
        "num_tokens": train.num_tokens,
        "waste": train.waste,
        "buckets": [bucket.to_json() for bucket in train.buckets],
        "num_heldout_rows": len(heldout.rows),
        "num_heldout_tokens": heldout.num_tokens,
        "heldout_waste": heldout.waste,
        "longest_document_tokens": longest,
        "chunk_tokens": budget,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
    }


def _write_chunks(
    chunker: Chunker,
    special: SpecialTokens,
    documents: Path,
    path: Path,
    sequences: dict[str, Sequences],
    progress: Progress,
) -> int:
    """Chunk every document; return the most tokens a training document has, BOS and EOS included."""
    longest = 0
    counts: Counter[str] = Counter()
    with pq.ParquetWriter(path, CHUNKS, compression="zstd") as writer:
        for batch in _batches(documents):
            rows: list[dict[str, Any]] = []
            for document, encoded in zip(batch, chunker.encode([d["text"] for d in batch]), strict=True):
                if document["split"] == "train":
                    longest = max(longest, len(encoded.ids) + special.num)
                chunks = chunker.cut(encoded)
                for index, chunk in enumerate(chunks):
                    chunk_id = f"{document['doc_id']}:{index}"
                    bos = [special.bos] if special.bos is not None and index == 0 else []
                    eos = [special.eos] if special.eos is not None and index == len(chunks) - 1 else []
                    if ids := [*bos, *chunk.token_ids, *eos]:
                        sequences[document["split"]].append(chunk_id, ids)
                    rows.append(
                        {
                            "chunk_id": chunk_id,
                            "doc_id": document["doc_id"],
                            "index": index,
                            "char_start": chunk.char_start,
                            "char_end": chunk.char_end,
                            "num_tokens": chunk.num_tokens,
                            "heading_path": list(chunk.heading_path),
                            "split": document["split"],
                        }
                    )
                before = counts["bytes"] // _PROGRESS_EVERY_BYTES
                counts.update(documents=1, chunks=len(chunks), bytes=document["num_bytes"])
                if counts["bytes"] // _PROGRESS_EVERY_BYTES > before:
                    progress(f"prepare: {counts['bytes'] / 1e6:,.0f} MB in {counts['chunks']:,} chunks")
            writer.write_table(pa.Table.from_pylist(rows, schema=CHUNKS))
    progress(f"prepare: {counts['documents']:,} documents in {counts['chunks']:,} chunks")
    return longest


def _batches(documents: Path) -> Iterator[list[dict[str, Any]]]:
    columns = ["doc_id", "text", "split", "num_bytes"]
    for batch in pq.ParquetFile(documents).iter_batches(batch_size=_DOCUMENTS_A_BATCH, columns=columns):
        yield batch.to_pylist()


def _refuse_no_rows(train: PackingPlan, heldout: PackingPlan) -> None:
    if not train.rows:
        raise UserError(
            "No training row is left: packing.bucket_token_budgets or bucket_repeats leave every chunk out, raise them."
        )
    if not heldout.rows:
        raise UserError(
            "The held-out documents hold no token at all: raise corpus.heldout_fraction or take another split_seed."
        )
