"""Cut a text into pieces for calls of a model, and know where in the text each one stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_schemas.errors import UserError

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Chunk:
    """Piece `number`, counted from 0. Of the text it is `text[start:end]`; both are None where `chunk` changed the characters."""

    number: int
    text: str
    start: int | None
    end: int | None


def chunks_of(
    text: str, window_tokens: int, count_tokens: CountTokens, chunk: Callable[[str], Sequence[str]] | None = None
) -> tuple[Chunk, ...]:
    """The pieces of `chunk`, by default of `split`, with their places. Overlapping pieces are in order of their start."""
    pieces = split(text, window_tokens, count_tokens) if chunk is None else chunk(text)
    found: list[Chunk] = []
    least = 0
    for number, piece in enumerate(pieces):
        start = text.find(piece, least)
        if start >= 0:
            least = start + (len(piece) if chunk is None else min(1, len(piece)))
        found.append(Chunk(number, piece, *((start, start + len(piece)) if start >= 0 else (None, None))))
    return tuple(found)


def split(text: str, max_tokens: int, count_tokens: CountTokens) -> list[str]:
    """Pieces of at most `max_tokens` that together are the text, cut after a paragraph, line, sentence or word.

    The cut is at the strongest of these in the second half of what fits. Raises UserError if a single character does not fit.
    """
    pieces, start, guess = [], 0, max_tokens * 4
    while start < len(text):
        end = _longest(text, start, max_tokens, count_tokens, guess)
        guess = max(1, end - start)
        if end < len(text):
            end = _boundary(text, start, end, max_tokens, count_tokens)
        pieces.append(text[start:end])
        start = end
    return pieces


def _longest(text: str, start: int, max_tokens: int, count_tokens: CountTokens, guess: int) -> int:
    """An end such that text[start:end] fits and, where counts grow with the text, one character more would not."""
    fits, too_long = start, len(text) + 1
    end = min(len(text), start + guess)
    while too_long - fits > 1:
        if count_tokens(text[start:end]) <= max_tokens:
            fits = end
        else:
            too_long = end
        # gallop until something is too long, then bisect
        end = min(len(text), start + 2 * (fits - start) + 1) if too_long > len(text) else (fits + too_long) // 2
    if fits == start:
        raise UserError(f"The character at {start} alone has more than {max_tokens} tokens: raise window_tokens.")
    return fits


def _boundary(text: str, start: int, end: int, max_tokens: int, count_tokens: CountTokens) -> int:
    """The end after the last of the strongest boundaries in the second half of text[start:end], if the piece still fits."""
    middle = start + (end - start) // 2
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, max(start, middle - len(mark)), end)
        if found >= 0 and count_tokens(text[start : found + len(mark)]) <= max_tokens:
            return found + len(mark)
    return end
