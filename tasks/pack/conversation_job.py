"""Step 2 of packing for a part of instruction data: each conversation becomes one sequence with a weight for each token.

The weights are 1 for the tokens of answers and 0 for all others: see `tasks.pack.token_weights`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.packing_params import LongConversations
from data_schemas.parts import Parts
from data_schemas.tables import CHUNKS
from tasks.pack.conversations import CONTEXT_CUT, Conversation, ConversationEncoder
from tasks.pack.counted import Counted, Counts, add, to_json
from tasks.pack.sequences import SPLITS, SequenceWriter
from tasks.pack.token_weights import weights_name
from tasks.tokens.chat_template import ChatTemplate, NotRendered
from tasks.tokens.special_tokens import SpecialTokens

_BATCH_ROWS = 64
_COLUMNS = ["doc_id", "source", "source_uri", "record", "text", "language", "licence", "split", "num_bytes"]
_OF_CONVERSATION = ["turns", "context_start", "context_end"]


@dataclass(frozen=True)
class ConversationRules:
    """How conversations become sequences of at most `row_tokens` tokens."""

    template: ChatTemplate
    row_tokens: int
    long: LongConversations


@lru_cache(maxsize=1)
def _tokenizer(file: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


def write_conversations(
    path: Path,
    number: int,
    parts: Parts,
    tokenizer: Path,
    special: SpecialTokens,
    sources: tuple[str, ...],
    rules: ConversationRules,
) -> dict[str, Any]:
    """Write what `ChunkJob` writes of part `number`, read from `path`, and the weights; returns what it returns, and:

    longest_conversation  tokens, as it is in the data
    left_out              [source, reason, documents, bytes, tokens] of conversations for training
    refused               [URI, record, reason, detail] of those left out as a whole, of both splits
    answers               [tokens of answers, answers] of each training sequence
    cut                   conversations for training whose document was cut
    """
    encoder = ConversationEncoder(_tokenizer(tokenizer), rules.template, special)
    counts = {"documents": 0, "chunks": 0, "fragments": 0, "bytes": 0, "longest": 0, "longest_conversation": 0, "cut": 0}
    counted: Counted = {}
    left_out: list[list[Any]] = []
    refused: list[list[Any]] = []
    answers: list[list[int]] = []
    with ExitStack() as files:
        writer = files.enter_context(
            pq.ParquetWriter(files.enter_context(parts.writing(f"chunks-{number:05d}.parquet")), CHUNKS, compression="zstd")
        )
        weights = {split: files.enter_context(parts.writing(weights_name(split, number))).open("wb") for split in SPLITS}
        sequences = files.enter_context(SequenceWriter(parts, number))
        for file in weights.values():
            files.enter_context(file)
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS, columns=[*_COLUMNS, *_OF_CONVERSATION]):
            rows = []
            for row in batch.to_pylist():
                split, source, num_bytes = row["split"], sources.index(row["source"]), row["num_bytes"]
                group = [split, source, row["licence"], row["language"] or ""]
                counts["documents"] += 1
                counts["bytes"] += num_bytes
                try:
                    made = encoder.encode(Conversation.of(row), rules.row_tokens, rules.long)
                except NotRendered as problem:
                    refused.append([row["source_uri"], row["record"], problem.reason, problem.detail])
                    add(counted, [[*group, *Counts.of_document(num_bytes, 0, 0, True)]])
                    if split == "train":
                        left_out.append([source, problem.reason, 1, num_bytes, 0])
                    continue
                num_tokens = len(made.ids)
                add(counted, [[*group, *Counts.of_document(num_bytes, made.whole_tokens - special.num, 1, False)]])
                counts["chunks"] += 1
                if split == "train":
                    counts["longest_conversation"] = max(counts["longest_conversation"], made.whole_tokens)
                    answers.append([int(made.is_answer.sum()), made.num_answers])
                    if made.cut_bytes:
                        counts["cut"] += 1
                        left_out.append([source, CONTEXT_CUT, 0, made.cut_bytes, made.whole_tokens - num_tokens])
                kept_bytes = num_bytes - made.cut_bytes
                sequences.append(split, row["doc_id"], 0, source, made.ids, kept_bytes, num_tokens)
                weights[split].write(made.is_answer.astype("<f4").tobytes())
                rows.append(_chunk(row, num_tokens - special.num))
            writer.write_table(pa.Table.from_pylist(rows, schema=CHUNKS))
    return counts | {"groups": to_json(counted), "left_out": left_out, "refused": refused, "answers": answers}


def _chunk(row: dict[str, Any], num_tokens: int) -> dict[str, Any]:
    return {
        "chunk_id": f"{row['doc_id']}:0",
        "doc_id": row["doc_id"],
        "index": 0,
        "source": row["source"],
        "previous_chunk_id": None,
        "next_chunk_id": None,
        "char_start": 0,
        "char_end": len(row["text"]),
        "num_tokens": num_tokens,
        "heading_path": [],
        "split": row["split"],
    }
