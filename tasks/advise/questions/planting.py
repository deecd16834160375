"""Sentences planted in a document, and the control: the document with its evidence replaced by other text of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.chunk.graphemes import starts_cluster

Spans = tuple[tuple[int, int], ...]

_MAX_SHIFT = 0.03  # share of the document by which a sentence may move to the start of a line or a word
_TRIES = 50


@dataclass(frozen=True)
class Planted:
    """A document with planted sentences. `spans[i]` is where sentence i, in the order they were given, stands."""

    text: str
    spans: Spans


def plant(text: str, sentences: Sequence[tuple[float, str]]) -> Planted:
    """Put each sentence on a line of its own near its share of the document (0: start, 1: end)."""
    places = [_place(text, share) for share, _ in sentences]
    order = sorted(range(len(sentences)), key=lambda i: (places[i], sentences[i][0]))
    pieces: list[str] = []
    spans: dict[int, tuple[int, int]] = {}
    done = length = 0
    for i in order:
        before = text[done : places[i]]
        length += len(before) + 1
        spans[i] = (length, length + len(sentences[i][1]))
        pieces += [before, "\n", sentences[i][1], "\n"]
        length += len(sentences[i][1]) + 1
        done = places[i]
    return Planted("".join([*pieces, text[done:]]), tuple(spans[i] for i in range(len(sentences))))


def without(text: str, spans: Spans, avoid: Sequence[str], rng: np.random.Generator) -> str:
    """`text` with as many characters of its other text in place of each span, none of which hold a string of `avoid`.

    If no such text is found, the span is filled with blanks.
    """
    kept = _outside(text, spans)
    filled = _replaced(text, spans, [_filler(kept, end - start, avoid, rng) for start, end in sorted(spans)])
    return _replaced(text, spans, [" " * (end - start) for start, end in sorted(spans)]) if holds(filled, avoid) else filled


def holds(text: str, words: Sequence[str]) -> bool:
    """Whether `text` contains any of `words`, ignoring case."""
    folded = text.casefold()
    return any(word.casefold() in folded for word in words)


def _outside(text: str, spans: Spans) -> str:
    return _replaced(text, spans, [""] * len(spans))


def _replaced(text: str, spans: Spans, others: Sequence[str]) -> str:
    pieces, done = [], 0
    for (start, end), other in zip(sorted(spans), others, strict=True):
        pieces += [text[done:start], other]
        done = end
    return "".join([*pieces, text[done:]])


def _filler(kept: str, num_characters: int, avoid: Sequence[str], rng: np.random.Generator) -> str:
    for _ in range(_TRIES if len(kept) > num_characters else 0):
        start = _boundary(kept, int(rng.integers(0, len(kept) - num_characters)))
        found = kept[start : start + num_characters].replace("\n", " ")
        if len(found) == num_characters and found.strip() and not holds(found, avoid):
            return found
    return " " * num_characters


def _place(text: str, share: float) -> int:
    return _boundary(text, round(share * len(text)), max(1, round(_MAX_SHIFT * len(text))))


def _boundary(text: str, place: int, reach: int = 200) -> int:
    """The nearest start of a line within `reach` characters, else of a word, else of a character as readers see it."""
    if place <= 0 or place >= len(text):
        return min(max(place, 0), len(text))
    for mark in ("\n", " "):
        before, after = text.rfind(mark, max(0, place - reach), place), text.find(mark, place, place + reach)
        near = [found + 1 for found in (before, after) if found >= 0]
        if near:
            return min(near, key=lambda found: abs(found - place))
    places = np.arange(place, min(len(text), place + 64) + 1)
    return int(places[int(np.argmax(starts_cluster(text, places)))])
