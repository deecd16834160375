"""Texts as tokens. Prompts are concatenated pieces, so what a prompt costs is known before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Needle:
    """`tokens` int32 [tokens]; the gold begins in token `gold_at`."""

    tokens: np.ndarray
    gold_at: int


def encode(text: str, tokenizer: Any) -> np.ndarray:
    """Token ids, int32 [tokens], without special tokens."""
    return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int32)


def encode_each(texts: list[str], tokenizer: Any) -> list[np.ndarray]:
    """`encode` for many texts at once."""
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [np.asarray(ids, np.int32) for ids in encoded]


def needle(text: str, gold: str, tokenizer: Any) -> Needle:
    """The tokens of `text`, which holds `gold`."""
    tokens, first = _split(text, text.index(gold), tokenizer)
    return Needle(tokens, first)


def question_and_answer(question: str, answer: str, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as tokens. They are encoded together, as a model would continue the question.

    The answer's tokens are those that hold a character of `answer`, white space in front of it not counted.
    """
    start = len(question) + len(answer) - len(answer.lstrip())
    tokens, first = _split(question + answer, start, tokenizer)
    return tokens[:first], tokens[first:]


def _split(text: str, start: int, tokenizer: Any) -> tuple[np.ndarray, int]:
    """The tokens and the index of the first one that reaches beyond character `start`."""
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in encoding["offset_mapping"]]
    return np.asarray(encoding["input_ids"], np.int32), next(i for i, end in enumerate(ends) if end > start)


def generation_limit(answer: np.ndarray, limit: int) -> int:
    """Tokens to generate: `limit`, but never less than the canonical answer has and never more than twice as many."""
    return min(max(limit, len(answer)), 2 * len(answer))
