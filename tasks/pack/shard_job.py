"""Step 4 of packing, on workers: rows become a shard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from data_schemas.manifest import hash_file
from data_schemas.parts import Parts
from tasks.pack.packer import PlannedRows
from tasks.pack.sequences import SequenceReader
from tasks.pack.shards import write_shard
from tasks.pack.token_weights import WeightReader


@lru_cache(maxsize=2)
def _reader(parts: Parts, num_parts: int, split: str) -> SequenceReader:
    return SequenceReader(parts, num_parts, split)


@dataclass(frozen=True)
class ShardJob:
    """Writes one shard of `split` from the sequences of `num_parts` parts; returns its SHA-256.

    `plan` distinguishes this packing's rows from those of another packing of the same parts. `weights` are those of retrieval
    documents and conversations, if there are any.
    """

    parts: Parts
    num_parts: int
    split: str
    plan: str
    weights: WeightReader | None = None

    def __call__(self, unit: tuple[str, PlannedRows]) -> str:
        name, rows = unit
        with self.parts.writing(self.part_name(name)) as path:
            write_shard(path, rows, _reader(self.parts, self.num_parts, self.split), self.weights)
            return hash_file(path)

    def part_name(self, name: str) -> str:
        return f"{self.split}-{self.plan}-{name}"
