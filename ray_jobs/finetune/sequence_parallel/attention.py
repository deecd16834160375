"""Attention of one worker's tokens of a row that is cut over several workers: equal to attention over the whole row.

Layers in groups: segments that begin in this part are computed while the halo travels. Then follow the part's first tokens, which go
on with a segment of an earlier part, with the halo's keys and values before their own.

Layers and documents in full: heads are exchanged for tokens where the number of key-value heads is a multiple of the workers; else
a halo reaches back to the document's start, of one key-value head at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ray_jobs.finetune.executors import Executor
from ray_jobs.finetune.segments import RowSegments, Segments
from ray_jobs.finetune.sequence_parallel.all_to_all import heads_for_tokens, tokens_for_heads
from ray_jobs.finetune.sequence_parallel.exchange import Exchange, Link
from ray_jobs.finetune.sequence_parallel.halo import Piece, local_segments, pieces
from tasks.model.attention_scores import ScoreChange, attend_in_blocks


class Heads(NamedTuple):
    """Query heads and their key-value heads that share a partition of the row into segments."""

    query: slice
    key_value: slice
    segments: Segments


class LocalSegments(NamedTuple):
    """One part of a partition `of` the row: its first `num_joined` tokens go on with an earlier part's segment, the others are `inner`."""

    of: Segments
    num_joined: int
    inner: Segments | None


@dataclass
class RowPart:
    """This worker's part of a row: `segments` of the whole row, the `cuts` [C + 1] between parts, and who has the others.

    `is_read` tells whether an attention layer has asked for it. What all layers need is found once.
    """

    segments: RowSegments
    cuts: tuple[int, ...]
    link: Link
    is_read: bool = field(default=False)
    _local: dict[int, LocalSegments] = field(default_factory=dict)
    _pieces: dict[tuple[Any, ...], list[Piece]] = field(default_factory=dict)

    @property
    def start(self) -> int:
        return self.cuts[self.link.index]

    @property
    def end(self) -> int:
        return self.cuts[self.link.index + 1]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each part."""
        return [b - a for a, b in zip(self.cuts, self.cuts[1:], strict=False)]

    def local(self, segments: Segments) -> LocalSegments:
        """This part of a partition of the row."""
        if (found := self._local.get(id(segments))) is None:
            first, bounds = local_segments(segments, self.start, self.end)
            counted = tuple(bound - first for bound in bounds)
            inner = Segments(torch.tensor(counted, dtype=torch.int32, device=segments.cu_seqlens.device), counted)
            found = LocalSegments(segments, first, inner if first < self.end - self.start else None)
            self._local[id(segments)] = found
        return found

    def pieces(self, partitions: Sequence[Segments], window: int | None) -> list[Piece]:
        """All that is sent for the row."""
        key = (*(id(self.local(segments).of) for segments in partitions), window)
        if key not in self._pieces:
            self._pieces[key] = pieces(partitions, self.cuts, window)
        return self._pieces[key]


def attend_part(
    query_tHD: torch.Tensor,
    key_tKD: torch.Tensor,
    value_tKD: torch.Tensor,
    part: RowPart,
    groups: Sequence[Heads],
    execute: Executor,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    change: ScoreChange | None = None,
) -> torch.Tensor:
    """[t, H, D] of this part's t tokens, from its queries [t, H, D], keys and values [t, K, D]; `groups` covers all heads in order."""
    found = part.pieces([heads.segments for heads in groups], window)
    call = Exchange(found, [heads.key_value for heads in groups], part.start, part.link)
    key, value, token = call.start(key_tKD, value_tKD)
    split = [part.local(heads.segments) for heads in groups]
    inner = [
        attend_inside(query_tHD, key, value, heads, local, execute, scale, dropout, window, change)
        for heads, local in zip(groups, split, strict=True)
    ]
    halos = call.finish(token)
    outputs = []
    for number, (heads, (_, count, _), computed) in enumerate(zip(groups, split, inner, strict=True)):
        parts = [] if computed is None else [computed]
        if count:
            halo = halos.pop(number, None)
            own = (key[:count, heads.key_value], value[:count, heads.key_value])
            keys, values = own if halo is None else (torch.cat(pair) for pair in zip(halo, own, strict=True))
            del halo  # what was joined is held once
            of_heads = None if change is None else change.of_heads(heads.query)
            parts.insert(0, attend_after_halo(query_tHD[:count, heads.query], keys, values, scale, dropout, window, of_heads))
        outputs.append(parts[0] if len(parts) == 1 else torch.cat(parts))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def attend_inside(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: Heads,
    local: LocalSegments,
    execute: Executor,
    scale: float,
    dropout: float,
    window: int | None,
    change: ScoreChange | None,
) -> torch.Tensor | None:
    """The segments that begin in this part; None if there is none."""
    if local.inner is None:
        return None
    rows = slice(local.num_joined, None)
    of_heads = None if change is None else change.of_heads(heads.query)
    return execute(
        query[rows, heads.query], key[rows, heads.key_value], value[rows, heads.key_value],
        local.inner, scale, dropout, window, of_heads,
    )  # fmt: skip


def attend_after_halo(
    query_tHD: torch.Tensor,
    key_mKD: torch.Tensor,
    value_mKD: torch.Tensor,
    scale: float,
    dropout: float,
    window: int | None,
    change: ScoreChange | None,
) -> torch.Tensor:
    """Causal attention of t queries that are the last t of m tokens of one segment: [t, H, D]."""
    num_kv = key_mKD.shape[1]
    query = query_tHD.unflatten(1, (num_kv, -1)).permute(1, 2, 0, 3)  # [K, H / K, t, D]
    key, value = (t.transpose(0, 1)[:, None] for t in (key_mKD, value_mKD))
    sinks = None if change is None or change.sinks_H is None else change.sinks_H.view(num_kv, -1)
    by_head = ScoreChange(None if change is None else change.softcap, sinks)
    reach = window if window is not None and window < len(key_mKD) else None
    out = attend_in_blocks(query, key, value, scale, by_head, window=reach, dropout=dropout)
    return out.permute(2, 0, 1, 3).flatten(1, 2)


def attend_part_in_full(
    query_tHD: torch.Tensor,
    key_tKD: torch.Tensor,
    value_tKD: torch.Tensor,
    part: RowPart,
    execute: Executor,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    change: ScoreChange | None = None,
) -> torch.Tensor:
    """As `attend_part`, within whole documents."""
    num_heads, num_kv, workers = query_tHD.shape[1], key_tKD.shape[1], part.link.num_workers
    if num_kv % workers or window is not None:
        documents = part.segments.documents
        # Whole documents are long: one key-value head at a time, so that no worker holds those of all. A window's halo is short.
        is_long = window is None and bool(part.pieces([documents], window))
        step, group = 1 if is_long else num_kv, num_heads // num_kv
        outputs = []
        for first in range(0, num_kv, step):
            queries, keys = slice(first * group, (first + step) * group), slice(first, first + step)
            own, of_heads = Heads(slice(0, step * group), slice(0, step), documents), change and change.of_heads(queries)
            tensors = (query_tHD[:, queries], key_tKD[:, keys], value_tKD[:, keys])
            outputs.append(attend_part(*tensors, part, [own], execute, scale, dropout, window, of_heads))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    query, key, value = (heads_for_tokens(t, part.lengths, part.link) for t in (query_tHD, key_tKD, value_tKD))
    mine = num_heads // workers
    of_heads = None if change is None else change.of_heads(slice(part.link.index * mine, (part.link.index + 1) * mine))
    out = execute(query, key, value, part.segments.documents, scale, dropout, window, of_heads)
    return tokens_for_heads(out, part.lengths, part.link)
