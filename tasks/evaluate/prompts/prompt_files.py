"""Prompts in a Parquet file, so that all arms and workers read the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.samples import PROMPTS
from tasks.evaluate.prompts.prompt import TaskPrompt

_ROWS_AT_ONCE = 256  # of long prompts: some 100 MB


def write_prompts(prompts: Sequence[TaskPrompt], path: Path) -> None:
    """One row a prompt, in the order given."""
    with pq.ParquetWriter(path, PROMPTS, compression="zstd") as writer:
        for start in range(0, len(prompts), _ROWS_AT_ONCE):
            rows = [_row(prompt) for prompt in prompts[start : start + _ROWS_AT_ONCE]]
            writer.write_table(pa.Table.from_pylist(rows, schema=PROMPTS))


def read_prompts(path: Path) -> list[TaskPrompt]:
    """The prompts that `write_prompts` wrote, in the same order."""
    return list(_prompts(path))


def _row(prompt: TaskPrompt) -> dict[str, Any]:
    return {field.name: getattr(prompt, field.name) for field in fields(prompt)}


def _prompts(path: Path) -> Iterator[TaskPrompt]:
    for batch in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE):
        for i in range(batch.num_rows):
            row = {name: column[i] for name, column in zip(batch.schema.names, batch.columns, strict=True)}
            yield TaskPrompt(**{name: _value(scalar) for name, scalar in row.items()})


def _value(scalar: pa.Scalar) -> Any:
    if not scalar.is_valid:
        return None
    if scalar.type == pa.list_(pa.int32()):
        return np.array(scalar.values.to_numpy(), np.int32)
    value = scalar.as_py()
    return tuple(value) if isinstance(value, list) else value
