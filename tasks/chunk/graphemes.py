"""Grapheme clusters: what a reader sees as one character, such as a letter with its accents, an emoji with its modifiers,
a flag, or a Devanagari consonant with its vowel sign. The rules are Unicode's (UAX #29, extended clusters), as `regex` has them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import regex

_CLUSTER = regex.compile(r"\X")
_JOINS_BEFORE = regex.compile(r"[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}\p{GCB=V}\p{GCB=T}\p{GCB=Regional_Indicator}]+")
_JOINS_AFTER = regex.compile(r"[\p{GCB=Prepend}\p{GCB=ZWJ}\p{GCB=L}\p{GCB=Extend}]+")
_PLANES_WITH_JOINERS = ((0, 0x20000), (0xE0000, 0xE1000))
_MAX_LOOK_BACK = 64


def starts_cluster(text: str, positions: np.ndarray) -> np.ndarray:
    """Whether a grapheme cluster, or the end of the text, is at each of `positions` (int64 [n], increasing); bool [n]."""
    whole = np.ones(len(positions), bool)
    if not len(positions) or (text.isascii() and "\r" not in text):
        return whole
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    joins_before, joins_after = _tables()
    inside = np.flatnonzero((positions > 0) & (positions < len(text)))
    places = positions[inside]
    before, after = codes[places - 1], codes[places]
    whole[inside[(before == 0x0D) & (after == 0x0A)]] = False
    doubtful = joins_before[after] | joins_after[before]
    known = 0  # the last start of a cluster that was found
    for number, place in zip(inside[doubtful].tolist(), places[doubtful].tolist(), strict=True):
        start = max(known, _quiet(text, place))
        while start < place:
            known = start
            start = _CLUSTER.match(text, start, place + 1).end()  # type: ignore[union-attr]
        whole[number] = start == place
        known = start if start == place else known
    return whole


def _quiet(text: str, place: int) -> int:
    """A place before `place` where a cluster starts for certain: a space; at most 64 characters back."""
    lowest = max(0, place - _MAX_LOOK_BACK)
    return max(text.rfind(" ", lowest, place), lowest)


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """For each code point, whether it may belong to the character in front of it, and to the one behind it; bool [0x110000]."""
    tables = []
    for expression in (_JOINS_BEFORE, _JOINS_AFTER):
        table = np.zeros(0x110000, bool)
        for low, high in _PLANES_WITH_JOINERS:
            for match in expression.finditer("".join(map(chr, range(low, high)))):
                table[low + match.start() : low + match.end()] = True
        tables.append(table)
    return tables[0], tables[1]
