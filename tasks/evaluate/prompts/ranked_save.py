"""Ranked questions of one length in a Parquet file, so that every worker asks the very same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluate.prompts.ranked import RankedQuestion

_TOKENS = pa.list_(pa.int32())

RANKED_QUESTIONS = pa.schema(
    [
        pa.field("length", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("front", _TOKENS, nullable=False),
        pa.field("labels", pa.list_(_TOKENS), nullable=False),
        pa.field("passages", pa.list_(_TOKENS), nullable=False),
        pa.field("gold_rank", pa.int32(), nullable=False),
        pa.field("gold_at", pa.int32(), nullable=False),
        pa.field("question", _TOKENS, nullable=False),
        pa.field("answer", _TOKENS, nullable=False),
        pa.field("golds", pa.list_(pa.string()), nullable=False),
        pa.field("is_forced", pa.bool_(), nullable=False),
        pa.field("max_new_tokens", pa.int32(), nullable=False),
    ]
)


def write_ranked(questions: Sequence[RankedQuestion], path: Path) -> None:
    """One row a question, in the order given."""
    rows = [{field.name: getattr(question, field.name) for field in fields(question)} for question in questions]
    pq.write_table(pa.Table.from_pylist(rows, schema=RANKED_QUESTIONS), path, compression="zstd")


def read_ranked(path: Path) -> tuple[RankedQuestion, ...]:
    """What `write_ranked` wrote."""
    rows = pq.read_table(path, schema=RANKED_QUESTIONS, memory_map=False).to_pylist()
    return tuple(RankedQuestion(**{name: _value(name, value) for name, value in row.items()}) for row in rows)


def _value(name: str, value: Any) -> Any:
    kind = RANKED_QUESTIONS.field(name).type
    if kind == _TOKENS:
        return np.array(value, np.int32)
    if kind == pa.list_(_TOKENS):
        return tuple(np.array(ids, np.int32) for ids in value)
    return tuple(value) if isinstance(value, list) else value
