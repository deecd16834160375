"""A stretch of a document that has no more than so many tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def excerpt(text: str, max_tokens: int | None, count_tokens: Callable[[str], int], rng: np.random.Generator) -> str:
    """A stretch at a random place, from the start of a line where one is near; the whole text if it fits."""
    if max_tokens is None or (tokens := count_tokens(text)) <= max_tokens:
        return text
    share = max(1, max_tokens) / tokens
    start = _line_start(text, int(rng.random() * (1 - share) * len(text)))
    length = int(share * len(text))
    while length > 1 and count_tokens(text[start : start + length]) > max_tokens:
        length = int(length * 0.97)
    return text[start : start + length]


def _line_start(text: str, place: int) -> int:
    """The last start of a line in the 1000 characters before `place`, else of a word, else `place`."""
    for mark in ("\n", " "):
        if (found := text.rfind(mark, max(0, place - 1000), place)) >= 0:
            return found + 1
    return place
