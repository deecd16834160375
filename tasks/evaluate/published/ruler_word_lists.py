"""RULER's words, from the lists of the package wonderwords (MIT)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import overload


class KeyWords(Sequence[str]):
    """Every adjective with every noun, like "able-acorn", sorted, without holding the ten million of them in memory.

    Adjectives such as "deep" and "deep-sea", whose pairs sort among each other, are sorted together.
    """

    def __init__(self, adjectives: Sequence[str], nouns: Sequence[str]) -> None:
        self._nouns = sorted(set(nouns))
        self._groups: list[list[str]] = []
        for adjective in sorted(set(adjectives), key=lambda word: f"{word}-"):
            if self._groups and f"{adjective}-".startswith(f"{self._groups[-1][0]}-"):
                self._groups[-1].append(adjective)
            else:
                self._groups.append([adjective])
        self._pairs = {i: self._sorted(group) for i, group in enumerate(self._groups) if len(group) > 1}
        self._ends = list(accumulate(len(self._pairs.get(i, self._nouns)) for i in range(len(self._groups))))

    def _sorted(self, group: list[str]) -> list[str]:
        return sorted({f"{adjective}-{noun}" for adjective in group for noun in self._nouns})

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = bisect_right(self._ends, index)
        place = index - (self._ends[group - 1] if group else 0)
        if group in self._pairs:
            return self._pairs[group][place]
        return f"{self._groups[group][0]}-{self._nouns[place]}"


@lru_cache(maxsize=1)
def key_words() -> KeyWords:
    """RULER's keys."""
    return KeyWords(_words("adjectivelist"), _words("nounlist"))


@lru_cache(maxsize=1)
def counted_words() -> list[str]:
    """RULER's words to be counted: nouns, adjectives and verbs, sorted."""
    return sorted({*_words("nounlist"), *_words("adjectivelist"), *_words("verblist")})


def _words(name: str) -> list[str]:
    from importlib.resources import files

    text = files("wonderwords").joinpath("assets", f"{name}.txt").read_text(encoding="utf-8")
    return [word.rstrip() for word in text.splitlines()]
