"""Stretches of a text that can be quoted: its sentences and lines, in any language, and places where a line can be put in."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？؟।])\s*|\s*\n+\s*")
_BEGINNING = re.compile(r"\n+|(?<=[.!?…])[^\S\n]+|(?<=[。！？؟।])(?!\s)")  # where this ends, a line or a sentence begins
_MOST, _LEAST_LETTERS = 240, 8  # characters of a stretch, letters and digits in it
_WINDOW = 160  # characters of a stretch where the text has no sentence that is short enough
_CONTINUOUS = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"  # scripts without spaces between words
_WORD = re.compile(rf"{_CONTINUOUS}{{2}}|[^\W\d_]+(?:['’-][^\W\d_]+)*", re.UNICODE)
_CONTINUOUS_WORD = re.compile(_CONTINUOUS)


@dataclass(frozen=True)
class Stretch:
    """`text[start:end]` of the text it is from."""

    start: int
    end: int


def stretches(text: str) -> list[Stretch]:
    """The sentences and lines of `text` in order, without white space around them; long ones are cut at a space, or anywhere.

    Those with fewer than 8 letters and digits are left out.
    """
    return [one for one in _cut(text) if sum(map(str.isalnum, text[one.start : one.end])) >= _LEAST_LETTERS]


def words(text: str) -> list[tuple[int, str]]:
    """(place, word) of each word; pairs of characters in scripts that write no spaces."""
    return [(found.start(), found[0]) for found in _WORD.finditer(text)]


def is_long_word(word: str) -> bool:
    """Whether a word is long enough to be rare: 5 letters, or 2 characters of a script that writes no spaces."""
    return len(word) >= 5 or needs_no_spaces(word)


def needs_no_spaces(word: str) -> bool:
    """Whether a word is of a script that writes no spaces between words."""
    return _CONTINUOUS_WORD.match(word) is not None


def opening(text: str, most: int) -> str:
    """The first whole words of `text` with at most `most` characters, or `most` characters if there is no space among them."""
    if len(text) <= most:
        return text.rstrip()
    cut = text.rfind(" ", most // 2, most + 1)
    return text[: cut if cut > 0 else most].rstrip()


class Beginnings:
    """Places in a text where a line or a sentence begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._places = [0, *(found.end() for found in _BEGINNING.finditer(text) if found.end() < len(text))]

    def nearest(self, near: int) -> int:
        """The nearest one, or where a word begins if that is more than a stretch away."""
        after = bisect_left(self._places, near)
        place = min(self._places[max(0, after - 1) : after + 1], key=lambda one: abs(one - near))
        return place if abs(place - near) <= _MOST else quiet_place(self._text, near, _WINDOW)


def first_beginning(text: str, near: int) -> int:
    """Where at or after `near` the first line or sentence begins, or a word if that is more than a stretch away."""
    places = (found.end() for found in _BEGINNING.finditer(text, max(0, near - 1), near + _MOST))
    place = next((place for place in places if place >= near), None)
    return near if not near else quiet_place(text, near, _WINDOW) if place is None else place


def quiet_place(text: str, near: int, reach: int) -> int:
    """A place at most `reach` characters after `near` where a line or a word begins, or `near` if there is none."""
    line = text.find("\n", near, near + reach)
    if line >= 0:
        return line + 1
    space = text.find(" ", near, near + reach)
    return space + 1 if space >= 0 else near


def pieces(text: str, number: int) -> list[str]:
    """`text` in that many pieces of about equal length, cut at lines or words, without white space around them."""
    reach = len(text) // number // 4
    cuts = [0, *(quiet_place(text, round(i * len(text) / number), reach) for i in range(1, number)), len(text)]
    return [text[a:b].strip() for a, b in pairwise(cuts)]


def nearest(found: list[Stretch], char: int) -> int:
    """The number of the stretch that begins nearest at or after `char`, or the last one."""
    return min(bisect_left(found, char, key=lambda one: one.start), len(found) - 1)


def _cut(text: str) -> Iterator[Stretch]:
    start = 0
    for found in [*_END.finditer(text), None]:
        end = found.start() if found else len(text)
        yield from _windows(text, start, end)
        start = found.end() if found else end


def _windows(text: str, start: int, end: int) -> Iterator[Stretch]:
    while end - start > _MOST:
        space = text.rfind(" ", start + _WINDOW // 2, start + _WINDOW)
        cut = space if space > 0 else start + _WINDOW
        yield Stretch(start, cut)
        start = cut + (space > 0)
    if start < end:
        yield Stretch(start, end)
