"""The per-sample rows of an evaluation, on disk and in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.samples import ARMS, PERPLEXITY_SAMPLES, POSITION_SAMPLES, PROTOCOL_SAMPLES, REORDER_SAMPLES, TASK_SAMPLES

SCHEMAS = {
    "perplexity": PERPLEXITY_SAMPLES,
    "position": POSITION_SAMPLES,
    "protocol": PROTOCOL_SAMPLES,
    "task": TASK_SAMPLES,
    "reorder": REORDER_SAMPLES,
}


@dataclass(frozen=True)
class Samples:
    """One table of each schema of `data_schemas.samples`; any may have no rows."""

    perplexity: pa.Table
    position: pa.Table
    protocol: pa.Table
    task: pa.Table
    reorder: pa.Table

    @classmethod
    def of(cls, **tables: pa.Table) -> Samples:
        """The named tables, and no rows in the others."""
        return cls(**{name: tables.pop(name, schema.empty_table()) for name, schema in SCHEMAS.items()}, **tables)

    @classmethod
    def read(cls, folder: Path) -> Samples:
        """From the parquet files of an evaluation or of a release's evaluation folder.

        Raises:
            UserError: a file is missing, is not Parquet, or has another schema.
        """
        return cls(**{name: _read(folder / file_name(name), schema) for name, schema in SCHEMAS.items()})

    def write(self, folder: Path) -> None:
        """Write all files into `folder`, including those without rows."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            pq.write_table(getattr(self, field.name), folder / file_name(field.name))

    def arms(self, order: Iterable[str] = ()) -> list[str]:
        """The arms that have rows, in `order`, then the three usual ones, then the others by name."""
        present = {arm for field in fields(self) for arm in getattr(self, field.name)["arm"].unique().to_pylist()}
        return [arm for arm in dict.fromkeys((*order, *ARMS, *sorted(present))) if arm in present]


def file_name(name: str) -> str:
    """File of the table `name`."""
    return f"{name}_samples.parquet"


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: give the folder of an evaluation, or `evaluation` of a release, as it was written."
        ) from error
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} is not a readable Parquet file: give an evaluation's folder as it was written.") from error
    table = _with_later_columns(table, schema)
    try:
        if table.column_names != schema.names:
            raise ValueError(f"columns {', '.join(table.column_names)} instead of {', '.join(schema.names)}")
        if holes := [field.name for field in schema if not field.nullable and table[field.name].null_count]:
            raise ValueError(f"nulls in {holes[0]}")
        return table.cast(schema)
    except (ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is not a table of samples ({' '.join(str(error).split())[:200]}): give an evaluation's folder as it was written."
        ) from error


def _with_later_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with nulls in the last columns of `schema` where an older version wrote the file without them."""
    if table.column_names == schema.names[: table.num_columns]:
        for field in list(schema)[table.num_columns :]:
            if field.nullable:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table
