"""Where shifted sparse attention may look: segment boundaries, counted from each document's first token.

    document of 22 tokens, g = 8      unshifted heads  [0,8) [8,16) [16,22)
                                      shifted heads    [0,4) [4,12) [12,20) [20,22)

A segment never spans two documents and never wraps round. The attention of a head is causal attention inside its segments.
A document that attends in full is one segment for all heads, beside documents in groups in the same row.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
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


def with_host_copy(tensor: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """`tensor`, which remembers the equal `values` in the CPU's memory, so that finding segments need not wait for the device."""
    if not tensor.is_inference():  # in torch.inference_mode tensors do not count their changes
        tensor._s2_on_host = (tensor._version, values)  # type: ignore[attr-defined]
    return tensor


def _on_host(tensor: torch.Tensor) -> np.ndarray:
    version, values = getattr(tensor, "_s2_on_host", (None, None))
    return values if values is not None and version == tensor._version else tensor.cpu().numpy()


def documents_of_rows(position_ids: torch.Tensor) -> list[list[tuple[int, int]]]:
    """For each row of `position_ids` [B, L], the first token and the end of its documents, counted within the row."""
    found = []
    for row in np.atleast_2d(_on_host(position_ids)):
        bounds = [0, *(np.flatnonzero(row[1:] <= row[:-1]) + 1).tolist(), len(row)]
        found.append(list(pairwise(bounds)))
    return found


def segment_batch(position_ids: torch.Tensor, group_size: int, in_full: torch.Tensor | None = None) -> RowSegments:
    """Partitions of a batch with `position_ids` [B, L] that restart at each document (LongLoRA, arXiv 2309.12307, 3.2).

    `in_full` bool [B, L] is True at the tokens of documents that attend in full: these are not cut into groups. Computed on the
    CPU: nothing waits for the device if both tensors have their copy there (`with_host_copy`).
    Raises ValueError for a group size below 2: half a group would be empty.
    """
    if group_size < 2:
        raise ValueError(f"s2_group_size is {group_size}: it must be at least 2")
    positions = _on_host(position_ids)
    first = np.ones(positions.shape, bool)
    first[:, 1:] = positions[:, 1:] <= positions[:, :-1]
    starts = first.reshape(-1)
    tokens = np.arange(len(starts))
    offset = tokens - np.maximum.accumulate(np.where(starts, tokens, 0))  # position within the document
    half = group_size // 2
    unshifted = offset % group_size == 0
    shifted = (offset == 0) | ((offset >= half) & ((offset - half) % group_size == 0))
    if in_full is not None:
        whole = _on_host(in_full).reshape(-1)
        unshifted, shifted = (starts | (boundary & ~whole) for boundary in (unshifted, shifted))
    return RowSegments(*(_segments(boundary, position_ids.device) for boundary in (starts, unshifted, shifted)))


def _segments(boundary: np.ndarray, device: torch.device) -> Segments:
    bounds = (*np.flatnonzero(boundary).tolist(), len(boundary))
    return Segments(torch.tensor(bounds, dtype=torch.int32, device=device), bounds)
