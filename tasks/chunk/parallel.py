"""Chunking by several processes, in the order of the texts.

Texts go out in batches of about a quarter of a megabyte; ids and spans come back as int32 arrays, not as objects: shipping whole
results back would cost more than the second process brings. No more batches are under way than keep the workers busy,
so memory does not grow with the number of texts.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from data_schemas.params import ChunkingParams
from tasks.chunk.chunker import Chunk, Chunker, Spans
from tasks.workers import start_worker_process

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_BATCH_CHARS = 1 << 18
_BATCHES_AHEAD = 2  # for each worker
_START_TIMEOUT_S = 300

_Result = tuple[np.ndarray, Spans]
_worker_chunker: Chunker | None = None
_worker_meeting: Barrier | None = None


class ChunkPool(AbstractContextManager["ChunkPool"]):
    """Worker processes that chunk; `with ChunkPool(tokenizer, params, 2) as pool: pool.chunk_many(texts)`.

    One worker is this process itself. The chunks do not depend on the number of workers. Workers are spawned, so a
    script that uses them needs the usual `if __name__ == "__main__":`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast | Tokenizer, params: ChunkingParams, num_workers: int | None = None
    ) -> None:
        self.num_workers = num_workers or os.cpu_count() or 1
        self._chunker = Chunker(tokenizer, params)
        self._executor: ProcessPoolExecutor | None = None
        if self.num_workers > 1:
            serialized = getattr(tokenizer, "backend_tokenizer", tokenizer).to_str()
            context = multiprocessing.get_context("spawn")
            start = (serialized, params.model_dump(), context.Barrier(self.num_workers))
            self._executor = ProcessPoolExecutor(self.num_workers, context, _start_worker, start)

    def __exit__(self, *exception: object) -> None:
        if self._executor:
            self._executor.shutdown(cancel_futures=True)

    def wait_until_ready(self) -> None:
        """Returns when every worker has started, so that a measurement leaves their start out."""
        if self._executor:
            for met in [self._executor.submit(_meet) for _ in range(self.num_workers)]:
                met.result()

    def chunk_many(self, texts: Iterable[str], formats: Iterable[str] | None = None) -> Iterator[list[Chunk]]:
        """The chunks of each text, in order. `formats` says how each is written; without it that is guessed."""
        for ids, spans in self.cut_many(texts, formats):
            yield spans.chunks(ids)

    def cut_many(self, texts: Iterable[str], formats: Iterable[str] | None = None) -> Iterator[_Result]:
        """(token ids int32 [num_tokens], spans) of each text, in order."""
        batches = _batches(texts, formats)
        if not self._executor:
            for batch in batches:
                yield from _cut_batch(self._chunker, batch)
            return
        running: deque[Future[list[_Result]]] = deque()
        for batch in batches:
            running.append(self._executor.submit(_work, batch))
            if len(running) >= self.num_workers * _BATCHES_AHEAD:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()


def _batches(texts: Iterable[str], formats: Iterable[str] | None) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    num_chars = 0
    pairs = ((text, "auto") for text in texts) if formats is None else zip(texts, formats, strict=True)
    for text, text_format in pairs:
        batch.append((text, text_format))
        num_chars += len(text)
        if num_chars >= _BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


def _start_worker(serialized: str, params: dict[str, Any], meeting: Barrier) -> None:
    start_worker_process()
    from tokenizers import Tokenizer

    global _worker_chunker, _worker_meeting
    _worker_chunker = Chunker(Tokenizer.from_str(serialized), ChunkingParams(**params))
    _worker_meeting = meeting


def _meet() -> None:
    if _worker_meeting:
        _worker_meeting.wait(_START_TIMEOUT_S)


def _work(batch: list[tuple[str, str]]) -> list[_Result]:
    if _worker_chunker is None:
        raise RuntimeError("the worker was not started by ChunkPool")
    return list(_cut_batch(_worker_chunker, batch))


def _cut_batch(chunker: Chunker, batch: list[tuple[str, str]]) -> Iterator[_Result]:
    encoded = chunker.encode([text for text, _ in batch])
    for of_text, (_, text_format) in zip(encoded, batch, strict=True):
        yield of_text.ids, chunker.spans(of_text, text_format)
