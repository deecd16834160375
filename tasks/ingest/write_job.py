"""Step 9 of ingest, on workers: write the documents of a unit that stay as a part of the artifact."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.parts import Parts
from data_schemas.tables import CONVERSATIONS, DOCUMENTS, TURNS


@dataclass(frozen=True)
class WriteUnitJob:
    """Copies the rows in `keep` from read-N.parquet to documents-N.parquet; returns counts by split and source."""

    parts: Parts

    def __call__(self, unit: tuple[int, np.ndarray]) -> dict[str, Any]:
        number, keep = unit
        documents: Counter[str] = Counter()
        by_source: Counter[str] = Counter()
        bytes_by_source: Counter[str] = Counter()
        with (
            self.parts.reading(f"read-{number:05d}.parquet") as read,
            self.parts.writing(f"documents-{number:05d}.parquet") as written,
            pq.ParquetFile(read) as groups,
            pq.ParquetWriter(
                written, CONVERSATIONS if TURNS in groups.schema_arrow.names else DOCUMENTS, compression="zstd"
            ) as writer,
        ):
            first = 0
            for group in range(groups.num_row_groups):
                table = groups.read_row_group(group)
                kept = table.filter(pa.array(keep[first : first + len(table)]))
                first += len(table)
                if not len(kept):
                    continue
                writer.write_table(kept)
                documents.update(kept["split"].to_pylist())
                by_source.update(kept["source"].to_pylist())
                for source, num_bytes in zip(kept["source"].to_pylist(), kept["num_bytes"].to_pylist(), strict=True):
                    bytes_by_source[source] += num_bytes
        return {"documents": dict(documents), "by_source": dict(by_source), "bytes_by_source": dict(bytes_by_source)}
