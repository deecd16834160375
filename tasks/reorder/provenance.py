"""Where each sentence of a result comes from: the chunk, and the characters of the document.

Found by shared words, without a model. Rare words count more. From the result down, the sentence is followed to the part, and in
the end to the chunk and the sentence in it, that shares most of its words; what is left of them is followed again. `support` says
how much of the sentence was found. It does not say that the sentence is true.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass

from tasks.reorder.levels import Part
from tasks.reorder.map_reduce import MapReduceResult
from tasks.reorder.sentences import sentence_spans, words_of
from tasks.reorder.splitting import Chunk

_MOST_SOURCES = 3
_LEAST_SHARE = 0.15  # of a sentence's words, by weight, for one more source


@dataclass(frozen=True)
class Source:
    """A sentence of chunk number `chunk`, which is `document[start:end]`; None where the chunk is no stretch of the document.

    `support`: share of the result's sentence that is found here and in no better source, by weight of its words, 0 to 1.
    """

    chunk: int
    start: int | None
    end: int | None
    support: float


@dataclass(frozen=True)
class TracedSentence:
    """A sentence `result[start:end]` and where it comes from, best source first; none: no chunk shares a word with it."""

    text: str
    start: int
    end: int
    sources: tuple[Source, ...]

    @property
    def support(self) -> float:
        """Share of the sentence that was found in its sources, by weight of its words, 0 to 1."""
        return min(1.0, sum(source.support for source in self.sources))


def trace(result: MapReduceResult) -> tuple[TracedSentence, ...]:
    """Each sentence of the result's text with its sources."""
    if not result.levels:
        return ()
    (final,) = result.levels[-1]
    words = _Words(result)
    return tuple(
        TracedSentence(result.text[start:end], start, end, _sources(result.text[start:end], final, words))
        for start, end in sentence_spans(result.text)
    )


class _Words:
    """The words of every chunk and part, and how much each counts."""

    def __init__(self, result: MapReduceResult) -> None:
        self._of: dict[int, Set[str]] = {}
        self._nodes = [*result.chunks, *(part for level in result.levels for part in level)]  # kept alive, as ids are keys
        self.chunks = result.chunks
        of_chunks = [self.of(chunk) for chunk in result.chunks]
        times = Counter(word for words in of_chunks for word in words)
        self._weights: Mapping[str, float] = {word: math.log(1 + len(of_chunks) / n) for word, n in times.items()}
        self._unknown = math.log(1 + 2 * max(1, len(of_chunks)))

    def of(self, node: Part | Chunk) -> Set[str]:
        if id(node) not in self._of:
            self._of[id(node)] = words_of(node.text)
        return self._of[id(node)]

    def weight(self, words: Set[str]) -> float:
        return sum(self._weights.get(word, self._unknown) for word in sorted(words))


def _sources(sentence: str, final: Part, words: _Words) -> tuple[Source, ...]:
    wanted = words_of(sentence)
    left, total = wanted, words.weight(wanted)
    found: list[Source] = []
    while left and len(found) < _MOST_SOURCES:
        chunk = _followed(left, final, words)
        if not left & words.of(chunk):  # the parts share words that no chunk below them has
            chunk = max(words.chunks, key=lambda one: words.weight(left & words.of(one)))
        place, shared = _sentence_in(chunk, left, words)
        share = words.weight(shared) / total
        if not shared or (found and share < _LEAST_SHARE):
            break
        start = None if chunk.start is None else chunk.start + place[0]
        end = None if chunk.start is None else chunk.start + place[1]
        found.append(Source(chunk.number, start, end, round(share, 6)))
        left = left - shared
    return tuple(found)


def _followed(wanted: Set[str], part: Part, words: _Words) -> Chunk:
    """Down to the chunk that shares most of `wanted`; of equal ones the earlier."""
    node: Part | Chunk = part
    while isinstance(node, Part):
        node = max(node.made_from, key=lambda one: words.weight(wanted & words.of(one)))
    return node


def _sentence_in(chunk: Chunk, wanted: Set[str], words: _Words) -> tuple[tuple[int, int], Set[str]]:
    """The chunk's sentence that shares most of `wanted`, and what it shares; of equal ones the earlier."""
    spans = sentence_spans(chunk.text) or [(0, len(chunk.text))]
    shared = [wanted & words_of(chunk.text[start:end]) for start, end in spans]
    best = max(range(len(spans)), key=lambda i: words.weight(shared[i]))
    return spans[best], shared[best]
