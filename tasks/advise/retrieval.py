"""Passages of one document, ranked for a question by BM25 or by an embedding model."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from data_schemas.params import ChunkingParams
from data_schemas.reorder import ChunkingAdvice
from data_schemas.serving_advice import RetrievalSettings
from tasks.chunk.chunker import Chunker
from tasks.chunk.similarity import Embedder
from tasks.reorder import permutation

# Scripts that are written without blanks between words: Han, kana, Thai, Lao, Burmese, Khmer.
_UNSPACED = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = re.compile(rf"(?P<unspaced>[{_UNSPACED}]+)|[^\W{_UNSPACED}]+")


class Passages:
    """Cuts documents and finds passages in them; remembers the last documents.

    Args:
        embedding_model: folder of an encoder, for the retriever `embedding`.
    """

    def __init__(self, tokenizer: Any, chunking: ChunkingParams, embedding_model: str | None) -> None:
        self._tokenizer, self._chunking = tokenizer, chunking
        self._embedder = Embedder(embedding_model, "advise.embedding_model") if embedding_model else None
        self._chunkers: dict[ChunkingAdvice, Chunker] = {}
        self.cut = lru_cache(maxsize=64)(self._cut)
        self._index = lru_cache(maxsize=64)(self._indexed)
        self._vectors = lru_cache(maxsize=64)(self._embedded)

    def in_prompt_order(self, document: str, question: str, settings: RetrievalSettings) -> list[str]:
        """The best `k` passages in the order of `settings`. Of equal passages the earlier one counts as better."""
        passages = self.cut(document, settings.chunking)
        scores = self._scores(document, question, settings)
        best = np.argsort(-scores, kind="stable")[: settings.k].tolist()
        return [passages[best[rank - 1]] for rank in permutation(settings.order, len(best))]

    def _scores(self, document: str, question: str, settings: RetrievalSettings) -> np.ndarray:
        """Of each passage, float64 [passages]; higher is better."""
        if settings.retriever == "embedding":
            assert self._embedder is not None, "the plan names this retriever only with a model"
            similarity: np.ndarray = self._vectors(document, settings.chunking) @ self._embedder.embed([question])[0]
            return np.round(similarity, 6)
        scores = self._index(document, settings.chunking).get_scores(_terms(question))
        return np.asarray(scores, np.float64)

    def _cut(self, document: str, chunking: ChunkingAdvice) -> tuple[str, ...]:
        if chunking not in self._chunkers:
            changes = {
                "strategy": chunking.strategy,
                "max_tokens": chunking.max_tokens,
                "overlap_fraction": chunking.overlap_fraction,
            }
            with warnings.catch_warnings():  # unusual overlaps are what is compared
                warnings.simplefilter("ignore")
                self._chunkers[chunking] = Chunker(self._tokenizer, self._chunking.model_copy(update=changes))
        return tuple(document[chunk.char_start : chunk.char_end] for chunk in self._chunkers[chunking].chunk(document))

    def _indexed(self, document: str, chunking: ChunkingAdvice) -> Any:
        import bm25s

        index = bm25s.BM25()
        index.index([_terms(passage) for passage in self.cut(document, chunking)], show_progress=False)
        return index

    def _embedded(self, document: str, chunking: ChunkingAdvice) -> np.ndarray:
        """Unit vectors, [passages, width]."""
        assert self._embedder is not None
        return self._embedder.embed(list(self.cut(document, chunking)))


def _terms(text: str) -> list[str]:
    """Words in lower case, and in scripts without blanks pairs of neighbouring characters, since their words are not told apart.

    A text without any counts as a full stop, since the index takes no empty one.
    """
    terms: list[str] = []
    for found in _WORD.finditer(text.casefold()):
        word = found[0]
        pairs = [word[place : place + 2] for place in range(len(word) - 1)]
        terms += pairs if found["unspaced"] and pairs else [word]
    return terms or ["."]
