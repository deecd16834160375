"""Find near-duplicate passages by the Jaccard similarity of their word 5-grams."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

NGRAM_WORDS = 5
_WORD = re.compile(r"\w+")


def word_ngrams(text: str) -> frozenset[tuple[str, ...]]:
    """The word 5-grams of a text in lower case. A shorter text gives one n-gram of all its words; without words, of the text."""
    words = _WORD.findall(text.casefold()) or [text.strip()]
    last = max(1, len(words) - NGRAM_WORDS + 1)
    return frozenset(tuple(words[i : i + NGRAM_WORDS]) for i in range(last))


class NearDuplicates:
    """The kept passages, searched for near-duplicates of a further one.

    A search costs one look-up for each n-gram and each kept passage that shares it.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._sizes: dict[int, int] = {}
        self._holders: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def keep(self, rank: int, text: str) -> None:
        """Remember the passage of `rank`."""
        ngrams = word_ngrams(text)
        self._sizes[rank] = len(ngrams)
        for ngram in ngrams:
            self._holders[ngram].append(rank)

    def twin(self, text: str) -> tuple[int, float] | None:
        """Rank and similarity of the kept passage most similar to `text`, None below the threshold; ties go to the better rank."""
        ngrams = word_ngrams(text)
        shared = Counter(rank for ngram in ngrams for rank in self._holders.get(ngram, ()))
        similar = [(count / (len(ngrams) + self._sizes[rank] - count), -rank) for rank, count in shared.items()]
        similarity, negative_rank = max(similar, default=(0.0, 0))
        return (-negative_rank, similarity) if similar and similarity >= self.threshold else None
