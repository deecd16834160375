"""One call of a language model: what it is asked, what it replies, and what that costs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Call:
    """`prompt` int32 [tokens]. `answer` int32 [K] is the right answer, whose log-probability is wanted; empty for none.

    `weighs_itself`: whether the log-probability of the model's own answer, the first line that it writes, is wanted too.
    """

    prompt: np.ndarray
    max_new_tokens: int
    answer: np.ndarray
    weighs_itself: bool = False

    @property
    def digest(self) -> str:
        """Of all that decides the reply of one model."""
        parts = (
            self.prompt.astype(np.int32),
            self.answer.astype(np.int32),
            np.array([self.max_new_tokens, self.weighs_itself]),
        )
        hashed = hashlib.sha256()
        for part in parts:
            hashed.update(f"{len(part)}:".encode() + part.tobytes())
        return hashed.hexdigest()[:32]


@dataclass(frozen=True)
class Reply:
    """The model's answer. Log-probabilities are means in nats a token; None where they were not wanted, or nothing was generated."""

    text: str
    num_tokens: int
    seconds: float
    own_logprob: float | None = None
    answer_logprob: float | None = None


class Model(Protocol):
    """A language model that answers greedily."""

    def ask_all(self, calls: Sequence[Call]) -> list[Reply]:
        """The replies in the order of `calls`, which do not depend on each other. Their seconds add up to those of all."""
        ...


@dataclass(frozen=True)
class Asked:
    """One question answered in one way. Costs are those of all its calls; log-probabilities are of the last one.

    `why_not`: why the question could not be asked in this way; empty where it was.
    """

    text: str = ""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    own_logprob: float | None = None
    answer_logprob: float | None = None
    why_not: str = ""


class Counted:
    """A model whose calls are counted."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.prompt_tokens = self.answer_tokens = 0
        self.seconds = 0.0

    def ask(self, call: Call) -> Reply:
        return self.ask_all([call])[0]

    def ask_all(self, calls: Sequence[Call]) -> list[Reply]:
        replies = self._model.ask_all(calls)
        self.prompt_tokens += sum(len(call.prompt) for call in calls)
        self.answer_tokens += sum(reply.num_tokens for reply in replies)
        self.seconds += math.fsum(reply.seconds for reply in replies)
        return replies

    def asked(self, last: Reply) -> Asked:
        """The outcome of all calls, of which `last` is the one that answers."""
        return Asked(
            text=last.text,
            prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens,
            seconds=self.seconds,
            own_logprob=last.own_logprob,
            answer_logprob=last.answer_logprob,
        )
