"""Rows of whole sequences: budgets, then the mix, then best-fit decreasing in bounded windows.

Rows mix lengths and sources freely: rows of one length bucket each waste 11-26 % of the tokens. The plan is a pure function of
the lengths, the sources and the parameters, on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_schemas.params import PackingParams
from tasks.pack.buckets import BucketReport, Cells, bucket_bounds
from tasks.pack.budgets import SourceShare, apply_budgets
from tasks.pack.left_out import dropped_warning, mix_warnings
from tasks.pack.reading import shuffled
from tasks.pack.recipes import ShareReport, apply_mix, share_reports

_SEQUENCE_ORDER, _ROW_ORDER = 2**31 + 3, 2**31  # random streams
ONE_SOURCE = (SourceShare("*"),)


@dataclass(frozen=True, eq=False)
class PlannedRows(Sequence[np.ndarray]):
    """Some rows of a plan, in two flat arrays as in PackingPlan."""

    members: np.ndarray
    row_ends: np.ndarray

    def __len__(self) -> int:
        return len(self.row_ends)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.members[self.row_ends[index - 1] if index else 0 : self.row_ends[index]]


@dataclass(frozen=True, eq=False)
class PackingPlan:
    """Row r has the sequences `members[row_ends[r-1]:row_ends[r]]`, by index; an index appears as often as it was sampled.

    `members` is int64 [num_used], `row_ends` int64 [num_rows]. `uses_budgeted` and `uses` are int32 [num_sequences]: how
    often each sequence is used after the budgets, and after budgets and mix. Nothing else grows with the corpus.
    `by_length` is empty without a recipe. `warnings` are sentences about what is left out.
    """

    members: np.ndarray
    row_ends: np.ndarray
    uses_budgeted: np.ndarray
    uses: np.ndarray
    buckets: tuple[BucketReport, ...]
    sources: tuple[ShareReport, ...]
    by_length: tuple[ShareReport, ...]
    warnings: tuple[str, ...]
    num_tokens: int
    target_length: int

    @property
    def num_rows(self) -> int:
        return len(self.row_ends)

    def row(self, index: int) -> np.ndarray:
        """int64 indices of the sequences of one row."""
        return self.members[self.row_ends[index - 1] if index else 0 : self.row_ends[index]]

    def rows(self, first: int, last: int) -> PlannedRows:
        """Rows [first, last), to send to the worker that writes them."""
        start, end = (int(self.row_ends[row - 1]) if row else 0 for row in (first, last))
        return PlannedRows(self.members[start:end], self.row_ends[first:last] - start)

    @property
    def waste(self) -> float:
        """Share of the rows' places that hold no token."""
        return 1 - self.num_tokens / (self.num_rows * self.target_length) if self.num_rows else 0.0


def plan_rows(
    lengths: np.ndarray,
    target_length: int,
    params: PackingParams,
    sources: np.ndarray | None = None,
    shares: Sequence[SourceShare] = ONE_SOURCE,
    document_lengths: np.ndarray | None = None,
) -> PackingPlan:
    """Which sequences share a row, and the order of the rows.

    `lengths` are int [num_sequences], BOS and EOS included, each from 1 to the target. `sources` are int [num_sequences],
    places in `shares`; None if there is one source. `document_lengths` are int [num_sequences], tokens of the whole
    document that each sequence is from, by which buckets and mixes sort; None if every sequence is a whole document. Raises
    ValueError for a length outside that range, because the packer never cuts or drops a sequence, and UserError for
    budgets, weights or a recipe that cannot be satisfied.
    """
    from tasks.pack.best_fit import best_fit_decreasing

    lengths = np.asarray(lengths, np.int64)
    shares = tuple(shares)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= target_length:
        raise ValueError(f"sequence lengths from {lengths.min()} to {lengths.max()} do not fit rows of {target_length} tokens")
    if sources is None and len(shares) != 1:
        raise ValueError(f"{len(shares)} sources are named, so `sources` must say which one each sequence comes from")
    bounds = bucket_bounds(params.min_bucket, target_length)
    of_document = lengths if document_lengths is None else np.asarray(document_lengths, np.int64)
    cells = Cells.sort(of_document, sources, tuple(share.name for share in shares), bounds)
    chosen = apply_budgets(lengths, cells, params)
    uses_budgeted = np.bincount(chosen, minlength=len(lengths)).astype(np.int32)
    chosen = apply_mix(chosen, lengths, of_document, sources, shares, target_length, params)
    uses = np.bincount(chosen, minlength=len(lengths)).astype(np.int32)
    buckets = cells.report(lengths, chosen)
    by_source, by_length = share_reports(chosen, lengths, of_document, sources, shares, target_length, params)
    warnings = (*dropped_warning(lengths, uses_budgeted, uses, params), *mix_warnings((*by_source, *by_length)))
    chosen = chosen[shuffled(len(chosen), params.seed, _SEQUENCE_ORDER)]
    members, row_ends = best_fit_decreasing(lengths[chosen], target_length, params.window_chunks)
    members, row_ends = reordered(chosen[members], row_ends, params.seed)
    num_tokens = sum(bucket.num_used_tokens for bucket in buckets)
    return PackingPlan(
        members, row_ends, uses_budgeted, uses, buckets, by_source, by_length, warnings, num_tokens, target_length
    )


def reordered(members: np.ndarray, row_ends: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same rows in an order that is a function of the seed and their number."""
    order = shuffled(len(row_ends), seed, _ROW_ORDER)
    counts = np.diff(row_ends, prepend=0)
    new_counts = counts[order]
    new_ends = np.cumsum(new_counts)
    shift = (row_ends - counts)[order] - (new_ends - new_counts)  # from a row's new place to its old one
    return members[np.arange(len(members)) + np.repeat(shift, new_counts)], new_ends
