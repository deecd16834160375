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
    return needles([text], [gold], tokenizer)[0]


def needles(texts: list[str], golds: list[str], tokenizer: Any) -> list[Needle]:
    """`needle` for many texts at once."""
    return [Needle(*split) for split in _split(texts, [t.index(g) for t, g in zip(texts, golds, strict=True)], tokenizer)]


def question_and_answer(question: str, answer: str, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as tokens. They are encoded together, as a model would continue the question.

    The answer's tokens are those that hold a character of `answer`, white space in front of it not counted.
    """
    return questions_and_answers([question], [answer], tokenizer)[0]


def questions_and_answers(questions: list[str], answers: list[str], tokenizer: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """`question_and_answer` for many at once."""
    pairs = list(zip(questions, answers, strict=True))
    starts = [len(question) + len(answer) - len(answer.lstrip()) for question, answer in pairs]
    split = _split([question + answer for question, answer in pairs], starts, tokenizer)
    return [(tokens[:first], tokens[first:]) for tokens, first in split]


def _split(texts: list[str], starts: list[int], tokenizer: Any) -> list[tuple[np.ndarray, int]]:
    """Each text's tokens and the index of the first one that reaches beyond its character `start`."""
    encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    firsts = [
        next(i for i, (_, end) in enumerate(offsets) if end > start)
        for offsets, start in zip(encoding["offset_mapping"], starts, strict=True)
    ]
    return [(np.asarray(ids, np.int32), first) for ids, first in zip(encoding["input_ids"], firsts, strict=True)]


def generation_limit(answer: np.ndarray, limit: int) -> int:
    """Tokens to generate: `limit`, but never less than the canonical answer has and never more than twice as many."""
    return min(max(limit, len(answer)), 2 * len(answer))
