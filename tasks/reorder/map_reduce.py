"""For texts longer than any context window: process pieces, combine the results within the window, repeat until one is left.

    text -> piece piece piece piece piece piece piece       `chunk`, at most `window_tokens` each
               |     |     |     |     |     |     |        `process`, each by itself
             part  part  part  part  part  part  part
               \\_____|_____/     \\_____|_____/    |         `combine`, as many neighbours as the window holds
                   part             part        part
                     \\________________|__________/
                                    part

Order is kept throughout. Every round has fewer parts than the one before, so it ends. If no two neighbouring parts fit the window
together, `process` or `combine` does not shorten enough, which is a UserError.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data_schemas.errors import UserError

SEPARATOR = "\n\n"
Cache = Callable[[str, Callable[[], str]], str]


@dataclass(frozen=True)
class MapReduceResult:
    """The final text. `parts_per_level` counts the pieces, then the parts after each round of combining."""

    text: str
    parts_per_level: tuple[int, ...]


def map_reduce(
    text: str,
    *,
    process: Callable[[str], str],
    combine: Callable[[Sequence[str]], str],
    count_tokens: Callable[[str], int],
    window_tokens: int,
    chunk: Callable[[str], Sequence[str]] | None = None,
    num_threads: int = 1,
    cache: Cache | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> MapReduceResult:
    """Process a text of any length with calls that each see at most `window_tokens`.

    Args:
        process: makes a short text of a piece, for example a summary by a model.
        combine: makes one text of two or more, given in reading order. Joined by an empty line, they fit the window.
        window_tokens: maximum number of text tokens in one call; leave room for instructions and answer.
        chunk: cuts the text; by default `split` at `window_tokens`, which loses no character.
        num_threads: number of parallel calls; `process` and `combine` must be thread-safe if it is above 1.
        cache: called with a key and a function that makes the value; returns the stored value, or makes and stores it, like
            `FolderCache`. After an interruption, finished calls are not repeated. A key depends only on the call's texts, so use
            another cache for another `process` or `combine`.

    Raises UserError if a piece or a part exceeds the window, or no two parts fit it together.
    """
    if window_tokens < 1 or num_threads < 1:
        raise UserError(f"window_tokens is {window_tokens} and num_threads {num_threads}: give 1 or more of each.")
    pieces = list(split(text, window_tokens, count_tokens) if chunk is None else chunk(text))
    _refuse_above_window(pieces, window_tokens, count_tokens, "Piece", "let `chunk` cut smaller")
    keep: Cache = cache or (lambda key, make: make())
    levels = [len(pieces)]
    parts = _each([[piece] for piece in pieces], "process", lambda group: process(group[0]), num_threads, keep)
    progress(f"processed {len(pieces)} pieces")
    while len(parts) > 1:
        _refuse_above_window(parts, window_tokens, count_tokens, "Part", "let `process` and `combine` shorten more")
        groups = _neighbours(parts, window_tokens, count_tokens)
        if len(groups) == len(parts):
            raise UserError(
                f"No two of {len(parts)} neighbouring parts fit a window of {window_tokens} tokens together, so combining would "
                "never end: let `process` and `combine` shorten to less than half the window, or raise window_tokens."
            )
        parts = _each(groups, "combine", combine, num_threads, keep)
        levels.append(len(parts))
        progress(f"combined into {len(parts)} parts")
    return MapReduceResult(parts[0] if parts else "", tuple(levels))


def split(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> list[str]:
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


@dataclass(frozen=True)
class FolderCache:
    """Keeps each value as a text file in `folder`, written atomically."""

    folder: Path

    def __call__(self, key: str, make: Callable[[], str]) -> str:
        path = self.folder / key
        if path.is_file():
            return path.read_bytes().decode("utf-8")
        value = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = self.folder / f".{key}.{uuid.uuid4().hex}"  # equal pieces are processed at once
        staged.write_bytes(value.encode("utf-8"))
        staged.replace(path)
        return value


def _each(
    groups: Sequence[Sequence[str]], stage: str, call: Callable[[Sequence[str]], str], num_threads: int, cache: Cache
) -> list[str]:
    """`call` on every group, in their order; when combining, a part that is alone stays unchanged."""

    def one(group: Sequence[str]) -> str:
        if stage == "combine" and len(group) == 1:
            return group[0]
        return cache(hashlib.sha256(json.dumps([stage, *group]).encode()).hexdigest(), lambda: call(group))

    if num_threads == 1:
        return [one(group) for group in groups]
    pool = ThreadPoolExecutor(num_threads)
    try:
        return list(pool.map(one, groups))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, wait only for the running calls


def _neighbours(parts: Sequence[str], window_tokens: int, count_tokens: Callable[[str], int]) -> list[list[str]]:
    """Parts in groups that fit the window, filled from the left."""
    groups: list[list[str]] = []
    for part in parts:
        if groups and count_tokens(SEPARATOR.join([*groups[-1], part])) <= window_tokens:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _refuse_above_window(
    texts: Sequence[str], window_tokens: int, count_tokens: Callable[[str], int], what: str, advice: str
) -> None:
    for number, text in enumerate(texts, start=1):
        if (tokens := count_tokens(text)) > window_tokens:
            raise UserError(
                f"{what} {number} of {len(texts)} has {tokens} tokens, above the window of {window_tokens}: {advice}."
            )


def _longest(text: str, start: int, max_tokens: int, count_tokens: Callable[[str], int], guess: int) -> int:
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


def _boundary(text: str, start: int, end: int, max_tokens: int, count_tokens: Callable[[str], int]) -> int:
    """The end after the last of the strongest boundaries in the second half of text[start:end], if the piece still fits."""
    middle = start + (end - start) // 2
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, max(start, middle - len(mark)), end)
        if found >= 0 and count_tokens(text[start : found + len(mark)]) <= max_tokens:
            return found + len(mark)
    return end
