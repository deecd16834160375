"""What every task makes: a prompt with its gold, the same for all models."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

RANKED_TASK = "ranked_passages"  # of ranked.py: no task of `evaluation.tasks`, it compares orders of passages


@dataclass(frozen=True, kw_only=True)
class TaskPrompt:
    """One prompt. Arrays are int32 token ids, BOS included where the base was trained with it.

    `tokens` ends where the answer starts. `answer` is the canonical answer behind it. With `is_forced` the one gold
    answer is right exactly when each of the answer's tokens is the model's most likely next one, so one teacher-forced forward
    pass gives what greedy decoding gives; otherwise up to `max_new_tokens` are generated, and the score is the share of
    `golds` that stand in the text.

    `control` is the prompt with other text in the needle's place: the log-probability of `answer` after `tokens` minus that
    after `control` is the recall gain. Where only the needle's depth differs, all depths of a sample share one control. None
    where a task has no needle to take out. It has at most `length - len(answer)` tokens.

    `depth` is where the gold was asked to stand, from 0 (first) to 1 (last), and `position` where its first token stands, as a
    share of the prompt; None for tasks whose gold stands all over the prompt.

    `len(tokens) + max(len(answer), 0 if is_forced else max_new_tokens) <= length`.
    """

    task: str
    length: int
    depth: float | None
    position: float | None
    sample: int
    seed: int
    tokens: np.ndarray
    golds: tuple[str, ...]
    answer: np.ndarray
    control: np.ndarray | None
    is_forced: bool
    max_new_tokens: int

    @property
    def prompt_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the prompt's tokens: equal prompts of different arms have it in common."""
        return hashlib.sha256(np.asarray(self.tokens, "<i4").tobytes()).hexdigest()[:16]
