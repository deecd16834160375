"""Passages of a corpus, and those that BM25 takes for the answer to a question although they are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.evaluate.prompts.corpus_questions import CorpusQuestion, CorpusText


@dataclass(frozen=True)
class Passage:
    """Some sentences of the document number `document`."""

    document: int
    text: str


class Passages:
    """All documents cut into passages of at least `num_characters` characters, whole sentences each, indexed for BM25."""

    def __init__(self, texts: Sequence[CorpusText], num_characters: int) -> None:
        import bm25s

        self._texts, self._num_characters = texts, num_characters
        self.all = [Passage(number, text) for number, one in enumerate(texts) for text in _cut(one.sentences, num_characters)]
        self._index: Any = bm25s.BM25()
        self._index.index([_terms(passage.text) or ["."] for passage in self.all], show_progress=False)

    def gold(self, question: CorpusQuestion) -> str:
        """The passage with the answer: what is asked about, and sentences before and after it up to the usual size."""
        sentences = self._texts[question.document].sentences
        first, last = question.first, question.last
        size = sum(len(sentence) + 1 for sentence in sentences[first : last + 1])
        after = True
        while size < self._num_characters and (first > 0 or last + 1 < len(sentences)):
            if (after and last + 1 < len(sentences)) or first == 0:
                last += 1
                size += len(sentences[last]) + 1
            else:
                first -= 1
                size += len(sentences[first]) + 1
            after = not after
        return " ".join(sentences[first : last + 1])

    def negatives(self, question: CorpusQuestion) -> Iterator[str]:
        """Passages of other documents without the answer, the highest BM25 score for what is asked about first."""
        scores = self._index.get_scores(_terms(question.named) or ["."])
        for i in np.argsort(-scores, kind="stable").tolist():
            passage = self.all[i]
            if passage.document != question.document and question.answer.casefold() not in passage.text.casefold():
                yield passage.text


def _cut(sentences: Sequence[str], num_characters: int) -> Iterator[str]:
    passage: list[str] = []
    size = 0
    for sentence in sentences:
        passage.append(sentence)
        size += len(sentence) + 1
        if size >= num_characters:
            yield " ".join(passage)
            passage, size = [], 0
    if passage:
        yield " ".join(passage)


def _terms(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
