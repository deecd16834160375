"""Published prompts as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasks.evaluate.prompts.prompt import TaskPrompt


def prompt_ids(text: str, tokenizer: Any) -> np.ndarray:
    """int32 [tokens], as the authors' model wrappers encode: BOS where the tokenizer adds one; a last EOS is left out."""
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    while len(ids) > 1 and tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return np.asarray(ids, np.int32)


def token_counter(tokenizer: Any) -> Callable[[str], int]:
    """Counts the tokens of a text without special ones, as RULER does."""
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


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
    answer_ids = np.asarray(tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"], np.int32)
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
