"""Texts as tokens. Prompts are planned from pieces, so about what a prompt costs is known before it is made; `joining` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.tokens.encoding import encoder_of


@dataclass(frozen=True)
class Needle:
    """`tokens` int32 [tokens]; the gold begins in token `gold_at`."""

    tokens: np.ndarray
    gold_at: int


def encode(text: str, tokenizer: Any) -> np.ndarray:
    """Token ids, int32 [tokens], without special tokens, as the text continues other text: see `tasks.tokens`."""
    return encode_each([text], tokenizer)[0]


def encode_each(texts: list[str], tokenizer: Any) -> list[np.ndarray]:
    """`encode` for many texts at once."""
    return [np.array(encoding.ids, np.int32) for encoding in encoder_of(tokenizer).encode_short(texts)]


def text_of(ids: np.ndarray, tokenizer: Any) -> str:
    """The characters of token ids, also of ids from the middle of a text."""
    return encoder_of(tokenizer).text(ids)


def needle(text: str, gold: str, tokenizer: Any) -> Needle:
    """The tokens of `text`, which holds `gold`."""
    return needles([text], [gold], tokenizer)[0]


def needles(texts: list[str], golds: list[str], tokenizer: Any) -> list[Needle]:
    """`needle` for many texts at once."""
    return [Needle(*split) for split in _split(texts, [t.index(g) for t, g in zip(texts, golds, strict=True)], tokenizer)]


@dataclass(frozen=True)
class ChatTurn:
    """A chat template around one user's message, int32 token ids: `opening` before it, BOS included, and `reply` from its end to where the
    assistant's answer begins."""

    opening: np.ndarray
    reply: np.ndarray


def question_and_answer(
    question: str, answer: str, tokenizer: Any, chat: ChatTurn | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Both as tokens. They are encoded together, as a model would continue the question.

    The answer's tokens are those that hold a character of `answer`, white space in front of it not counted. With `chat` the question
    ends the user's message, and the words in it that begin the answer begin the assistant's.
    """
    return questions_and_answers([question], [answer], tokenizer, chat)[0]


def questions_and_answers(
    questions: list[str], answers: list[str], tokenizer: Any, chat: ChatTurn | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`question_and_answer` for many at once."""
    if chat is not None:
        cuts = [_reply_start(question) for question in questions]
        begun = [question[cut:].lstrip() for question, cut in zip(questions, cuts, strict=True)]
        asked = encode_each([question[:cut].rstrip() for question, cut in zip(questions, cuts, strict=True)], tokenizer)
        replies = questions_and_answers(begun, answers, tokenizer)
        return [(np.concatenate([ids, chat.reply, start]), answer) for ids, (start, answer) in zip(asked, replies, strict=True)]
    pairs = list(zip(questions, answers, strict=True))
    starts = [len(question) + len(answer) - len(answer.lstrip()) for question, answer in pairs]
    split = _split([question + answer for question, answer in pairs], starts, tokenizer)
    return [(tokens[:first], tokens[first:]) for tokens, first in split]


def _reply_start(question: str) -> int:
    """Where the answer's first words begin, such as "The pass key is": behind the last question mark or line end."""
    return max(question.rfind("? ") + 1, question.rfind("\n") + 1)


def _split(texts: list[str], starts: list[int], tokenizer: Any) -> list[tuple[np.ndarray, int]]:
    """Each text's tokens and the index of the first one that reaches beyond its character `start`."""
    encodings = encoder_of(tokenizer).encode_short(texts)
    firsts = [
        next(i for i, (_, end) in enumerate(encoding.offsets) if end > start)
        for encoding, start in zip(encodings, starts, strict=True)
    ]
    return [(np.array(encoding.ids, np.int32), first) for encoding, first in zip(encodings, firsts, strict=True)]


def generation_limit(answer: np.ndarray, limit: int) -> int:
    """Tokens to generate: `limit`, but never less than the canonical answer has and never more than twice as many."""
    return min(max(limit, len(answer)), 2 * len(answer))
