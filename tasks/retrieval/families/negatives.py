"""Passages of other documents that BM25 finds most like a text (NExtLong, arXiv 2501.12766, uses a dense index instead)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tasks.retrieval.stretches import quiet_place, words
from tasks.retrieval.text_supply import SourceText

_MOST_PASSAGES = 20_000
_MOST_QUERY_WORDS = 200


class Negatives:
    """The documents of a part in passages of about `num_chars` characters; each is given out once."""

    def __init__(self, documents: Sequence[SourceText], num_chars: int) -> None:
        self._documents, self._num_chars = documents, max(num_chars, 40)
        self._given: set[int] = set()

    def like(self, text: str, not_from: Collection[str]) -> Iterator[tuple[str, str]]:
        """(doc_id, passage), the most similar first, none of documents `not_from` and none that `give` has had."""
        terms = _terms(text)[:_MOST_QUERY_WORDS]
        if not self._passages or not terms:
            return
        scores = self._index.get_scores(terms)
        for number in np.argsort(-scores, kind="stable").tolist():
            doc_id, passage = self._passages[number]
            if number not in self._given and doc_id not in not_from:
                yield doc_id, passage

    def give(self, passages: Collection[str]) -> None:
        """These passages are used, and not given out again."""
        self._given.update(i for i, (_, passage) in enumerate(self._passages) if passage in passages)

    @cached_property
    def _passages(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for document in self._documents:
            start = 0
            while start < len(document.text) and len(found) < _MOST_PASSAGES:
                end = quiet_place(document.text, min(start + self._num_chars, len(document.text)), self._num_chars // 4)
                if passage := document.text[start:end].strip():
                    found.append((document.doc_id, passage))
                start = end
        return found

    @cached_property
    def _index(self) -> Any:
        import bm25s

        index = bm25s.BM25()
        index.index([_terms(passage) or ["."] for _, passage in self._passages], show_progress=False)
        return index


def _terms(text: str) -> list[str]:
    return [word.casefold() for _, word in words(text)]
