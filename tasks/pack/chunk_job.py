"""Step 2 of packing, on workers: a part of the documents becomes chunks and token sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.params import ChunkingParams
from data_schemas.parts import Parts
from data_schemas.tables import CHUNKS, TURNS
from tasks.chunk.chunker import Chunk, Chunker, Spans
from tasks.pack.conversation_job import ConversationRules, write_conversations
from tasks.pack.counted import Counted, Counts, add, to_json
from tasks.pack.fillers import Fillers, cut_again
from tasks.pack.sequences import SPLITS, SequenceWriter
from tasks.tokens.encoding import EncodedText
from tasks.tokens.special_tokens import SpecialTokens

TOKENIZER_FILE = "tokenizer.json"
CHUNK_PARTS = (
    "chunks-{}.parquet",
    *(f"{split}-{{}}.{kind}" for split in SPLITS for kind in ("tokens", "entries", "weights")),
    "chunked-{}.json",
)
_BATCH_BYTES = 4_000_000
Cut = tuple[dict[str, Any], EncodedText, Spans]  # a document, its tokens, and where it is cut
_COLUMNS = ["doc_id", "source", "text", "format", "language", "licence", "split", "num_bytes"]


@lru_cache(maxsize=1)
def _chunker(tokenizer_file: Path, params: ChunkingParams) -> Chunker:
    from tokenizers import Tokenizer

    return Chunker(Tokenizer.from_file(str(tokenizer_file)), params)


@dataclass(frozen=True)
class ChunkJob:
    """Chunks one part of the documents.

    Writes `chunks-N.parquet` and the files of `tasks.pack.sequences`; returns counts, those of `tasks.pack.counted` as `groups`.
    `parts` holds the tokenizer. `conversations` are the rules for parts of instruction data: see `conversation_job`.
    """

    documents: Parts
    parts: Parts
    params: ChunkingParams
    special: SpecialTokens
    sources: tuple[str, ...]
    row_length: int
    max_waste: float
    conversations: ConversationRules | None = None

    def __call__(self, unit: tuple[int, str]) -> dict[str, Any]:
        number, name = unit
        with self.documents.reading(name) as path:
            if TURNS in pq.read_schema(path).names:
                if self.conversations is None:
                    raise ValueError(f"{name} holds conversations, and no rules for them were given")
                tokenizer = self.parts.kept(TOKENIZER_FILE)
                return write_conversations(path, number, self.parts, tokenizer, self.special, self.sources, self.conversations)
        counts = {"documents": 0, "chunks": 0, "fragments": 0, "bytes": 0, "longest": 0}
        counted: Counted = {}
        fillers = Fillers(self.row_length, self.max_waste)
        chunker = _chunker(self.parts.kept(TOKENIZER_FILE), self.params)
        with (
            self.documents.reading(name) as path,
            self.parts.writing(f"chunks-{number:05d}.parquet") as chunks_path,
            pq.ParquetWriter(chunks_path, CHUNKS, compression="zstd") as writer,
            SequenceWriter(self.parts, number) as sequences,
        ):
            for batch in _batches(path):
                cut = [
                    (document, encoded, chunker.spans(encoded, document["format"], document["language"]))
                    for document, encoded in zip(batch, chunker.encode([d["text"] for d in batch]), strict=True)
                ]
                rows: list[dict[str, Any]] = []
                for document, encoded, chunks in self._filled(cut, chunker, fillers):
                    later = max(0, len(chunks) - 1)
                    document_tokens = len(encoded.ids) + self.special.num + later * self.special.num_bos
                    source = self.sources.index(document["source"])
                    if document["split"] == "train":
                        counts["longest"] = max(counts["longest"], len(encoded.ids) + self.special.num)
                    counts["documents"] += 1
                    counts["bytes"] += document["num_bytes"]
                    counts["chunks"] += len(chunks)
                    counts["fragments"] += len(chunks) if len(chunks) > 1 else 0
                    is_empty = not chunks or document_tokens == 0
                    of_document = Counts.of_document(document["num_bytes"], len(encoded.ids), len(chunks), is_empty)
                    add(counted, [[document["split"], source, document["licence"], document["language"] or "", *of_document]])
                    for index, chunk in enumerate(chunks):
                        ids = self.special.around(chunk.token_ids, is_last=index == later)
                        num_bytes = _num_bytes(document, chunk) if len(chunks) > 1 else document["num_bytes"]
                        if not is_empty:
                            sequences.append(
                                document["split"], document["doc_id"], index, source, ids, num_bytes, document_tokens
                            )
                        rows.append(_row(document, index, len(chunks), chunk))
                writer.write_table(pa.Table.from_pylist(rows, schema=CHUNKS))
        return counts | {"groups": to_json(counted)}

    def _filled(
        self, cut: list[Cut], chunker: Chunker, fillers: Fillers
    ) -> Iterator[tuple[dict[str, Any], EncodedText, list[Chunk]]]:
        """The chunks of each document of a batch; of those for training, some pieces are cut again into fillers."""
        again: set[tuple[int, int]] = set()
        size = 0
        if self.params.strategy == "semantic" and self.max_waste < 1:
            of_training = [(number, spans) for number, (document, _, spans) in enumerate(cut) if document["split"] == "train"]
            places = [(number, index) for number, spans in of_training for index in np.flatnonzero(spans.lengths).tolist()]
            lengths = np.array([cut[number][2].lengths[index] for number, index in places], np.int64)
            is_piece = np.array([len(cut[number][2].rows) > 1 for number, _ in places], bool)
            chosen, size = fillers.choose(lengths, is_piece)
            again = {places[place] for place in chosen.tolist()}
        for number, (document, encoded, spans) in enumerate(cut):
            chunks: list[Chunk] = []
            for index, chunk in enumerate(spans.chunks(encoded.ids)):
                if (number, index) in again:
                    chunks += cut_again(chunker, encoded, chunk, size, document["format"], document["language"])
                else:
                    chunks.append(chunk)
            yield document, encoded, chunks


def _num_bytes(document: dict[str, Any], chunk: Chunk) -> int:
    return len(document["text"][chunk.char_start : chunk.char_end].encode())


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Documents in batches of about 4 MB: the tokenizer is faster on many at once."""
    batch: list[dict[str, Any]] = []
    num_bytes = 0
    for table in pq.ParquetFile(path).iter_batches(batch_size=64, columns=_COLUMNS):
        for document in table.to_pylist():
            batch.append(document)
            num_bytes += document["num_bytes"]
            if num_bytes >= _BATCH_BYTES:
                yield batch
                batch, num_bytes = [], 0
    if batch:
        yield batch


def _row(document: dict[str, Any], index: int, num_chunks: int, chunk: Chunk) -> dict[str, Any]:
    doc_id = document["doc_id"]
    return {
        "chunk_id": f"{doc_id}:{index}",
        "doc_id": doc_id,
        "index": index,
        "source": document["source"],
        "previous_chunk_id": f"{doc_id}:{index - 1}" if index else None,
        "next_chunk_id": f"{doc_id}:{index + 1}" if index + 1 < num_chunks else None,
        "char_start": chunk.char_start,
        "char_end": chunk.char_end,
        "num_tokens": chunk.num_tokens,
        "heading_path": list(chunk.heading_path),
        "split": document["split"],
    }
