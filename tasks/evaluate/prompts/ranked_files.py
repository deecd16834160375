"""Ranked questions of one length in a Parquet file, so that all workers ask the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.samples import RANKED_QUESTIONS, TOKENS
from tasks.evaluate.prompts.ranked import RankedQuestion


def write_ranked(questions: Sequence[RankedQuestion], path: Path) -> None:
    """One row a question, in the order given."""
    rows = [{field.name: getattr(question, field.name) for field in fields(question)} for question in questions]
    pq.write_table(pa.Table.from_pylist(rows, schema=RANKED_QUESTIONS), path, compression="zstd")


def read_ranked(path: Path) -> tuple[RankedQuestion, ...]:
    """The questions that `write_ranked` wrote, in the same order."""
    rows = pq.read_table(path, schema=RANKED_QUESTIONS, memory_map=False).to_pylist()
    return tuple(RankedQuestion(**{name: _value(name, value) for name, value in row.items()}) for row in rows)


def _value(name: str, value: Any) -> Any:
    kind = RANKED_QUESTIONS.field(name).type
    if kind == TOKENS:
        return np.array(value, np.int32)
    if kind == pa.list_(TOKENS):
        return tuple(np.array(ids, np.int32) for ids in value)
    return tuple(value) if isinstance(value, list) else value
