"""The parts that are made of a text, level by level, and what each was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from data_schemas.errors import UserError
from tasks.reorder.kept_calls import Cache
from tasks.reorder.sentences import sentence_spans
from tasks.reorder.splitting import Chunk, CountTokens, split


@dataclass(frozen=True, eq=False)
class Part:
    """A text made from chunks or other parts, in reading order.

    `num_cut_tokens` counts what was cut from its end to keep the level's budget.
    """

    text: str
    num_tokens: int
    made_from: tuple[Part | Chunk, ...] = field(repr=False)  # a chain as long as the text
    num_cut_tokens: int = 0


Level = tuple[Part, ...]
Group = Sequence[Part | Chunk]


def budget_of(level_tokens: Sequence[int], level: int) -> int | None:
    """Most tokens of a part of `level`, counted from 0; the last budget is that of all further levels. None: no budget."""
    return level_tokens[min(level, len(level_tokens) - 1)] if level_tokens else None


def refuse_budgets(level_tokens: Sequence[int], window_tokens: int) -> None:
    for level, budget in enumerate(level_tokens):
        if not 1 <= budget <= window_tokens:
            raise UserError(
                f"The budget of level {level} is {budget} tokens: give between 1 and the window of {window_tokens} tokens."
            )


def make_part(text: str, made_from: Group, budget: int | None, count_tokens: CountTokens) -> Part:
    """A part within its budget: what is above it is cut after a sentence, or a word where one sentence is too long."""
    tokens = count_tokens(text)
    if budget is None or tokens <= budget:
        return Part(text, tokens, tuple(made_from))
    fits = split(text, budget, count_tokens)[0]
    ends = [end for _, end in sentence_spans(text) if end <= len(fits)]
    kept = text[: ends[-1]] if ends else fits.rstrip()
    kept_tokens = count_tokens(kept)
    return Part(kept, kept_tokens, tuple(made_from), tokens - kept_tokens)


def make_each(make: Callable[[Group], Part], groups: Sequence[Group], num_threads: int) -> Level:
    """A part for each group, in their order. After an error, only the running calls are waited for."""
    if num_threads == 1:
        return tuple(make(group) for group in groups)
    pool = ThreadPoolExecutor(num_threads)
    try:
        return tuple(pool.map(make, groups))
    finally:
        pool.shutdown(cancel_futures=True)


def kept(cache: Cache, stage: str, texts: Sequence[str], make: Callable[[], str]) -> str:
    """The kept answer to a call of a stage on these texts, or a new one."""
    return cache(hashlib.sha256(json.dumps([stage, *texts]).encode()).hexdigest(), make)


def refuse_above_window(texts: Sequence[str], window_tokens: int, count_tokens: CountTokens, what: str, advice: str) -> None:
    for number, text in enumerate(texts, start=1):
        if (tokens := count_tokens(text)) > window_tokens:
            raise UserError(
                f"{what} {number} of {len(texts)} has {tokens} tokens, above the window of {window_tokens}: {advice}."
            )
