"""For texts longer than any context window: process pieces, combine the results within the window, repeat until one is left.

    text -> piece piece piece piece piece piece piece       `chunk`, at most `window_tokens` each
               |     |     |     |     |     |     |        `process`, each by itself: level 0
             part  part  part  part  part  part  part
               \\_____|_____/     \\_____|_____/    |         `combine`, as many neighbours as the window holds: level 1
                   part             part        part
                     \\________________|__________/         level 2
                                    part

Order is kept throughout. Every round has fewer parts than the one before, so it ends. If no two neighbouring parts fit the window
together, `process` or `combine` does not shorten enough, which is a UserError. `tasks.reorder.refine` is the other form,
`tasks.reorder.summaries` runs both with a model, `tasks.reorder.provenance` and `tasks.reorder.dropped` say what became of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from data_schemas.errors import UserError
from tasks.reorder.kept_calls import Cache, FolderCache, keep_nothing
from tasks.reorder.levels import (
    Group,
    Level,
    Part,
    budget_of,
    kept,
    make_each,
    make_part,
    refuse_above_window,
    refuse_budgets,
)
from tasks.reorder.splitting import Chunk, CountTokens, chunks_of, split

SEPARATOR = "\n\n"

__all__ = ["SEPARATOR", "FolderCache", "LevelCall", "MapReduceResult", "map_reduce", "reduce_levels", "split"]

# Makes a text of one or more texts that are given in reading order; the number is the budget of the level, None without one.
LevelCall = Callable[[Sequence[str], int | None], str]


@dataclass(frozen=True)
class MapReduceResult:
    """The final text. `parts_per_level` counts the pieces, then the parts after each round of combining.

    `chunks` are the pieces. `levels` are the parts of each level, each with what it was made from.
    """

    text: str
    parts_per_level: tuple[int, ...]
    chunks: tuple[Chunk, ...] = ()
    levels: tuple[Level, ...] = ()


def map_reduce(
    text: str,
    *,
    process: Callable[[str], str],
    combine: Callable[[Sequence[str]], str],
    count_tokens: CountTokens,
    window_tokens: int,
    chunk: Callable[[str], Sequence[str]] | None = None,
    num_threads: int = 1,
    cache: Cache | None = None,
    progress: Callable[[str], None] = lambda message: None,
    level_tokens: Sequence[int] = (),
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
        level_tokens: most tokens of a part of level 0, 1, …; the last number holds for all further levels. A longer part is cut
            after a sentence, and `Part.num_cut_tokens` counts what was cut. Empty: parts are not cut.

    Raises UserError if a piece or a part exceeds the window, or no two parts fit it together.
    """
    return reduce_levels(
        text,
        process=lambda texts, budget: process(texts[0]),
        combine=lambda texts, budget: combine(texts),
        count_tokens=count_tokens,
        window_tokens=window_tokens,
        chunk=chunk,
        num_threads=num_threads,
        cache=cache,
        progress=progress,
        level_tokens=level_tokens,
    )


def reduce_levels(
    text: str,
    *,
    process: LevelCall,
    combine: LevelCall,
    count_tokens: CountTokens,
    window_tokens: int,
    chunk: Callable[[str], Sequence[str]] | None = None,
    num_threads: int = 1,
    cache: Cache | None = None,
    progress: Callable[[str], None] = lambda message: None,
    level_tokens: Sequence[int] = (),
) -> MapReduceResult:
    """`map_reduce`, but each call also gets the most tokens that its answer may have."""
    if window_tokens < 1 or num_threads < 1:
        raise UserError(f"window_tokens is {window_tokens} and num_threads {num_threads}: give 1 or more of each.")
    refuse_budgets(level_tokens, window_tokens)
    chunks = chunks_of(text, window_tokens, count_tokens, chunk)
    refuse_above_window([one.text for one in chunks], window_tokens, count_tokens, "Piece", "let `chunk` cut smaller")
    keep = keep_nothing if cache is None else cache

    def made(group: Group, stage: str, call: LevelCall, level: int) -> Part:
        texts, budget = [one.text for one in group], budget_of(level_tokens, level)
        return make_part(kept(keep, stage, texts, lambda: call(texts, budget)), group, budget, count_tokens)

    def combined(group: Group, level: int) -> Part:
        alone = group[0] if len(group) == 1 else None
        return alone if isinstance(alone, Part) else made(group, "combine", combine, level)

    parts = make_each(lambda group: made(group, "process", process, 0), [[one] for one in chunks], num_threads)
    levels = [parts]
    progress(f"processed {len(chunks)} pieces")
    while len(parts) > 1:
        texts = [part.text for part in parts]
        refuse_above_window(texts, window_tokens, count_tokens, "Part", "let `process` and `combine` shorten more")
        groups = _neighbours(parts, window_tokens, count_tokens)
        if len(groups) == len(parts):
            raise UserError(
                f"No two of {len(parts)} neighbouring parts fit a window of {window_tokens} tokens together, so combining would "
                "never end: let `process` and `combine` shorten to less than half the window, or raise window_tokens."
            )
        parts = make_each(partial(combined, level=len(levels)), groups, num_threads)
        levels.append(parts)
        progress(f"combined into {len(parts)} parts")
    counts = (len(chunks), *(len(level) for level in levels[1:]))
    return MapReduceResult(parts[0].text if parts else "", counts, chunks, tuple(levels))


def _neighbours(parts: Level, window_tokens: int, count_tokens: CountTokens) -> list[list[Part]]:
    """Parts in groups that fit the window, filled from the left."""
    groups: list[list[Part]] = []
    for part in parts:
        if groups and count_tokens(SEPARATOR.join([*(one.text for one in groups[-1]), part.text])) <= window_tokens:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups
