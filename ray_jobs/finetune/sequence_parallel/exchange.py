"""Keys and values from worker to worker while the local part is computed, and their gradients back.

    call = Exchange(pieces, ...)
    key, value, token = call.start(key, value)     # sends and receives begin
    ...                                            # what needs no other worker is computed
    halos = call.finish(token)                     # waits

In the backward pass the gradients of the halos are sent first, and added when the local part's are done. Messages between two
workers go one way in each pass, so their order is their number. Every worker must make the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ray_jobs.finetune.sequence_parallel.answering import answering
from ray_jobs.finetune.sequence_parallel.halo import Piece


@dataclass(frozen=True)
class Link:
    """The workers that share a row: this one's number among them, their ranks, and their process group.

    `timeout_s` is the limit that the group was made with. `everyone` is a group of all workers with the same limit; None is torch's own.
    """

    index: int
    ranks: tuple[int, ...]
    group: Any
    timeout_s: float = 1800.0
    everyone: Any = None

    @property
    def num_workers(self) -> int:
        return len(self.ranks)

    def send(self, buffer: torch.Tensor, to: int) -> Any:
        return dist.isend(buffer, self.ranks[to], group=self.group)

    def receive(self, buffer: torch.Tensor, sender: int) -> Any:
        return dist.irecv(buffer, self.ranks[sender], group=self.group)

    def answering(self) -> AbstractContextManager[None]:
        """Within it, a worker that vanishes raises a `WorkerLostError`."""
        names = ", ".join(str(rank) for i, rank in enumerate(self.ranks) if i != self.index)
        return answering(f"worker {self.ranks[self.index]} exchanges a row with {names}", f"{self.timeout_s:g} s")

    def wait(self, works: Sequence[Any]) -> None:
        """For messages that are under way. `WorkerLostError` if another worker does not answer, under gloo."""
        with self.answering():
            for work in works:
                work.wait()


class Exchange:
    """One layer's exchange. `heads` has the key-value heads of each partition, `first` is the row's token at this part's start."""

    def __init__(self, pieces: Sequence[Piece], heads: Sequence[slice], first: int, link: Link) -> None:
        self._heads, self._first, self.link = heads, first, link
        self._out: dict[int, list[Piece]] = {}
        self._in: dict[int, list[Piece]] = {}
        for piece in pieces:
            if piece.sender == link.index:
                self._out.setdefault(piece.receiver, []).append(piece)
            if piece.receiver == link.index:
                self._in.setdefault(piece.sender, []).append(piece)
        self._works: list[Any] = []
        self._kept: list[torch.Tensor] = []  # buffers that are being sent
        self._received: dict[int, torch.Tensor] = {}
        self._like: torch.Tensor | None = None  # keys of this part, for the shape of halos

    @property
    def has_halo(self) -> bool:
        return bool(self._in)

    def start(self, key_TKD: torch.Tensor, value_TKD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Keys and values to compute the local part with, and what `finish` takes."""
        if not self._in and not self._out:
            return key_TKD, value_TKD, None
        started: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _Start.apply(key_TKD, value_TKD, self)
        return started

    def finish(self, token: torch.Tensor | None) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """{partition: (keys, values) [halo tokens, heads, D] before this part's first token}."""
        halos: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        if token is None:
            return halos
        if self._in:
            numbers = self._partitions()
            tensors = _Finish.apply(token, self)
            halos = {number: (tensors[2 * i], tensors[2 * i + 1]) for i, number in enumerate(numbers)}
        self._wait()
        return halos

    def _partitions(self) -> list[int]:
        return sorted({piece.partition for pieces in self._in.values() for piece in pieces})

    def _num_elements(self, pieces: list[Piece], num_kv: int, width: int) -> int:
        tokens = sum((p.end - p.start) * len(range(*self._heads[p.partition].indices(num_kv))) for p in pieces)
        return 2 * tokens * width

    def begin(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self._like = key.new_empty((0, *key.shape[1:]))
        for sender, pieces in self._in.items():
            self._received[sender] = key.new_empty(self._num_elements(pieces, key.shape[1], key.shape[2]))
            with self.link.answering():
                self._works.append(self.link.receive(self._received[sender], sender))
        buffers: dict[tuple[tuple[int, int, int], ...], torch.Tensor] = {}  # one for all that receive the same
        for receiver, pieces in self._out.items():
            same = tuple((piece.start, piece.end, piece.partition) for piece in pieces)
            if same not in buffers:
                parts = [
                    tensor[piece.start - self._first : piece.end - self._first, self._heads[piece.partition]].flatten()
                    for piece in pieces
                    for tensor in (key, value)
                ]
                buffers[same] = torch.cat(parts)
            self._send(buffers[same], receiver)

    def take(self) -> tuple[torch.Tensor, ...]:
        """Keys and values of each partition's halo, in turn."""
        self._wait()
        found: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {number: [] for number in self._partitions()}
        for sender in sorted(self._in):
            parts = self._split(self._received.pop(sender), self._in[sender])
            for piece, pair in zip(self._in[sender], parts, strict=True):
                found[piece.partition].append(pair)
        return tuple(torch.cat(side) for number in found for side in zip(*found[number], strict=True))

    def send_back(self, grads: Sequence[torch.Tensor]) -> None:
        numbers, places = self._partitions(), dict.fromkeys(self._partitions(), 0)
        for sender in sorted(self._in):
            parts = []
            for piece in self._in[sender]:
                at, size = places[piece.partition], piece.end - piece.start
                places[piece.partition] += size
                column = 2 * numbers.index(piece.partition)
                parts += [grads[column][at : at + size].flatten(), grads[column + 1][at : at + size].flatten()]
            self._send(torch.cat(parts), sender)

    def add_back(self, grad_key: torch.Tensor, grad_value: torch.Tensor) -> None:
        """Add the gradients that come back from the workers after this one, one worker's at a time, in their order."""
        for receiver, pieces in sorted(self._out.items()):
            buffer = grad_key.new_empty(self._num_elements(pieces, grad_key.shape[1], grad_key.shape[2]))
            with self.link.answering():
                work = self.link.receive(buffer, receiver)
            self.link.wait([work])
            for piece, pair in zip(pieces, self._split(buffer, pieces), strict=True):
                rows = slice(piece.start - self._first, piece.end - self._first)
                for grad, part in zip((grad_key, grad_value), pair, strict=True):
                    grad[rows, self._heads[piece.partition]] += part
        self._wait()

    def _split(self, buffer: torch.Tensor, pieces: list[Piece]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        assert self._like is not None
        shapes = [(p.end - p.start, *self._like[:, self._heads[p.partition]].shape[1:]) for p in pieces]
        sizes = [size for shape in shapes for size in [shape[0] * shape[1] * shape[2]] * 2]
        parts = buffer.split(sizes)
        return [(parts[2 * i].view(shape), parts[2 * i + 1].view(shape)) for i, shape in enumerate(shapes)]

    def _send(self, buffer: torch.Tensor, to: int) -> None:
        self._kept.append(buffer)
        with self.link.answering():
            self._works.append(self.link.send(buffer, to))

    def _wait(self) -> None:
        self.link.wait(self._works)
        self._works, self._kept = [], []


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, key: torch.Tensor, value: torch.Tensor, call: Exchange) -> tuple[torch.Tensor, ...]:
        ctx.call = call
        call.begin(key, value)
        return key.view_as(key), value.view_as(value), key.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        grad_key, grad_value = grads[0].clone(), grads[1].clone()
        ctx.call.add_back(grad_key, grad_value)
        return grad_key, grad_value, None


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: torch.Tensor, call: Exchange) -> tuple[torch.Tensor, ...]:
        ctx.call = call
        return call.take()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        ctx.call.send_back(grads)
        return grads[0].new_zeros(()), None
