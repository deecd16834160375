"""Length buckets of documents. A source's bucket is the unit in which sequences are budgeted and reported.

A sequence is in the bucket of its whole document, so the pieces of a book are together, the last short one too. The last bucket
also has all documents that are longer than its bound, which is the target: their pieces fill rows.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BucketReport:
    """One source's sequences from documents of at most `upper_bound` tokens that are too long for the bucket below.

    `num_chunks` and `num_tokens` count what is available; `num_used` and `num_used_tokens` what is packed, repeats included.
    `repeats` is the ratio of the two in tokens, 0 for an empty bucket.
    """

    source: str
    upper_bound: int
    num_chunks: int
    num_tokens: int
    num_used: int
    num_used_tokens: int
    repeats: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bucket_bounds(min_bucket: int, target_length: int) -> list[int]:
    """Upper bounds in tokens: `min_bucket` doubled as long as it is below the target, then the target itself, which longer
    documents count to as well."""
    bounds = []
    bound = min_bucket
    while bound < target_length:
        bounds.append(bound)
        bound *= 2
    return [*bounds, target_length]


@dataclass(frozen=True)
class Cells:
    """Which (source, bucket) each sequence belongs to: `of` int64 [num_sequences] is source x number of buckets + bucket."""

    of: np.ndarray
    source_names: tuple[str, ...]
    bounds: tuple[int, ...]

    @staticmethod
    def sort(
        document_lengths: np.ndarray, sources: np.ndarray | None, source_names: tuple[str, ...], bounds: list[int]
    ) -> "Cells":
        """`document_lengths` are int [num_sequences], tokens of the whole document that each sequence is from. `sources` int
        [num_sequences] indexes `source_names`; None if there is one source."""
        of = np.searchsorted(bounds[:-1], document_lengths, side="left")
        if sources is not None:
            of += np.asarray(sources, np.int64) * len(bounds)
        return Cells(of, source_names, tuple(bounds))

    def report(self, lengths: np.ndarray, chosen: np.ndarray) -> tuple[BucketReport, ...]:
        """One report for each cell; `chosen` are the indices of the sequences used, with repeats."""
        counts, tokens = self._count(self.of, lengths)
        used, used_tokens = self._count(self.of[chosen], lengths[chosen])
        return tuple(
            BucketReport(
                source=name,
                upper_bound=bound,
                num_chunks=counts[cell],
                num_tokens=tokens[cell],
                num_used=used[cell],
                num_used_tokens=used_tokens[cell],
                repeats=used_tokens[cell] / tokens[cell] if tokens[cell] else 0.0,
            )
            for cell, (name, bound) in enumerate((n, b) for n in self.source_names for b in self.bounds)
        )

    def _count(self, cells: np.ndarray, lengths: np.ndarray) -> tuple[list[int], list[int]]:
        size = len(self.source_names) * len(self.bounds)
        tokens = np.bincount(cells, lengths, minlength=size)  # float64: exact up to 9e15 tokens
        return np.bincount(cells, minlength=size).tolist(), [int(n) for n in tokens]
