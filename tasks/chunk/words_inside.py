"""The weakest places to cut prose: ends of clauses and words. Each function reads only the text it is asked about."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import numpy as np

_CLAUSE = re.compile(
    r"""[,;:][»”’"')\]]{0,4}(?=\s)|[،؛，、；：](?=\S|\s)|\s(?=[—–-]\s)|(?<=\S)—(?=\S)|[)\]](?=\s)|\s(?=[(\[])|[.!?…](?=\s)"""
)
_CELL = re.compile(r"(?<![ \t])[ \t]*+(?=\|)|\t")


def last_clause(text: str, low: int, high: int, is_table_row: bool) -> Iterator[int]:
    """Ends of clauses, or of cells of a table, in [low, high], from the last to the first; then ends of lines.

    White space after a clause is not part of it. A single full stop that ends no sentence is skipped.
    """
    window_end = min(len(text), high + 1)
    pattern = _CELL if is_table_row else _CLAUSE
    ends = []
    for match in pattern.finditer(text, low - 1, window_end):
        position = match.start() if is_table_row or match[0].isspace() else match.end()
        if low <= position <= high and match[0] != ".":
            ends.append(position)
    yield from reversed(ends)
    end = high
    while (newline := text.rfind("\n", low, end)) >= 0:
        yield newline
        end = newline


def last_space(text: str, chars: np.ndarray, first: int, last: int) -> int | None:
    """The last cut in (first, last] in front of white space, or behind it; `chars` are the characters of the cuts."""
    for back, char in enumerate(chars[first + 1 : last + 1].tolist()[::-1]):
        if char < len(text) and (text[char].isspace() or text[char - 1].isspace()):
            return last - back
    return None


def last_edge(text: str, chars: np.ndarray, first: int, last: int) -> int | None:
    """The last cut in (first, last] between a letter or digit and something else."""
    for back, char in enumerate(chars[first + 1 : last + 1].tolist()[::-1]):
        if char < len(text) and _is_in_word(text[char - 1]) != _is_in_word(text[char]):
            return last - back
    return None


def _is_in_word(character: str) -> bool:
    return character.isalnum() or (character > "\u02ff" and unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf"))
