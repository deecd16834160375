"""Published prompts as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.tokens.encoding import encoder_of
from tasks.tokens.special_tokens import special_tokens


def prompt_ids(text: str, tokenizer: Any) -> np.ndarray:
    """int32 [tokens]: BOS where the tokenizer adds one, and the text as text, without EOS."""
    return np.concatenate([special_tokens(tokenizer).opening, *_text_ids(text, tokenizer)])


def _text_ids(text: str, tokenizer: Any) -> list[np.ndarray]:
    """Of one text: a literal special token in it is text."""
    return [encoded.ids for encoded in encoder_of(tokenizer).encode([text])]


def token_counter(tokenizer: Any) -> Callable[[str], int]:
    """Counts the tokens of a text without special ones, as RULER does."""
    return lambda text: sum(map(len, _text_ids(text, tokenizer)))


def published_prompt(
    task: str,
    length: int,
    sample: int,
    seed: int,
    text: str,
    golds: Sequence[str],
    answer: str,
    max_new_tokens: int,
    tokenizer: Any,
    depth: float | None = None,
    position: float | None = None,
) -> TaskPrompt:
    """A prompt whose answer is generated, with exactly the published number of new tokens, and which has no control."""
    (answer_ids,) = _text_ids(answer, tokenizer)
    return TaskPrompt(
        task=task,
        length=length,
        depth=depth,
        position=position,
        sample=sample,
        seed=seed,
        tokens=prompt_ids(text, tokenizer),
        golds=tuple(golds),
        answer=answer_ids,
        control=None,
        is_forced=False,
        max_new_tokens=max_new_tokens,
    )
