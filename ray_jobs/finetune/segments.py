"""Where shifted sparse attention may look: segment boundaries, counted from each document's first token.

    document of 22 tokens, g = 8      unshifted heads  [0,8) [8,16) [16,22)
                                      shifted heads    [0,4) [4,12) [12,20) [20,22)

A segment never spans two documents and never wraps round. The attention of a head is causal attention inside its segments.
A document that attends in full is one segment for all heads, beside documents in groups in the same row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Segments:
    """A partition of T tokens into runs; `cu_seqlens` int32 [S+1] on the device, its twin `bounds` on the host."""

    cu_seqlens: torch.Tensor
    bounds: tuple[int, ...]

    @property
    def max_length(self) -> int:
        return max((b - a for a, b in zip(self.bounds, self.bounds[1:], strict=False)), default=0)

    def runs(self) -> list[tuple[int, int, int]]:
        """Neighbouring segments of equal length as (first token, number of segments, length of each)."""
        runs: list[tuple[int, int, int]] = []
        for start, end in zip(self.bounds, self.bounds[1:], strict=False):
            if runs and runs[-1][2] == end - start:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1, end - start)
            else:
                runs.append((start, 1, end - start))
        return runs


@dataclass(frozen=True)
class RowSegments:
    """The three partitions of one batch: whole documents, unshifted groups and shifted groups."""

    documents: Segments
    unshifted: Segments
    shifted: Segments


def default_group_size(context_length: int) -> int:
    """Group size in tokens where none is set: a quarter of the context length, as in LongLoRA."""
    return context_length // 4


def document_starts(position_ids: torch.Tensor) -> torch.Tensor:
    """Bool [B*L]: True at each row's first token and where `position_ids` [B, L] do not grow.

    A document may skip positions, and a document starts at 0, so its first position is never above the one before it.
    """
    starts = torch.ones_like(position_ids, dtype=torch.bool)
    starts[:, 1:] = position_ids[:, 1:] <= position_ids[:, :-1]
    return starts.flatten()


def segment_batch(position_ids: torch.Tensor, group_size: int, in_full: torch.Tensor | None = None) -> RowSegments:
    """Partitions of a batch with `position_ids` [B, L] that restart at each document (LongLoRA, arXiv 2309.12307, 3.2).

    `in_full` bool [B, L] is True at the tokens of documents that attend in full: these are not cut into groups.
    Raises ValueError for a group size below 2: half a group would be empty.
    """
    if group_size < 2:
        raise ValueError(f"s2_group_size is {group_size}: it must be at least 2")
    starts = document_starts(position_ids)
    tokens = torch.arange(starts.numel(), device=starts.device)
    offset = tokens - torch.where(starts, tokens, 0).cummax(0).values  # position within the document
    half = group_size // 2
    unshifted = offset % group_size == 0
    shifted = (offset == 0) | ((offset >= half) & ((offset - half) % group_size == 0))
    if in_full is not None:
        unshifted, shifted = (starts | (boundary & ~in_full.flatten()) for boundary in (unshifted, shifted))
    return RowSegments(_segments(starts), _segments(unshifted), _segments(shifted))


def _segments(boundary: torch.Tensor) -> Segments:
    first = boundary.nonzero().flatten()
    cu_seqlens = torch.cat([first, first.new_tensor([boundary.numel()])]).to(torch.int32)
    return Segments(cu_seqlens, tuple(cu_seqlens.tolist()))
