"""A prompt with its gold, the same for all models; every task makes these."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

RANKED_TASK = "ranked_passages"  # of ranked.py; not one of `evaluation.tasks`: it compares orders of passages


@dataclass(frozen=True, kw_only=True)
class TaskPrompt:
    """One prompt. Arrays are int32 token ids, BOS included where the base was trained with it.

    `tokens` ends where the canonical answer, `answer`, starts. With `is_forced` there is one gold answer, and it is right exactly
    when each of its tokens is the model's most likely next one. So one teacher-forced forward pass gives the same result as greedy
    decoding. Otherwise up to `max_new_tokens` are generated, and the score is the share of `golds` that the text contains.

    `control` is the prompt with other text in the needle's place: the log-probability of `answer` after `tokens` minus that
    after `control` is the recall gain. Where only the needle's depth differs, all depths of a sample share one control. None
    where a task has no needle. It has at most `length - len(answer)` tokens.

    `depth` is the intended place of the gold, from 0 (first) to 1 (last), and `position` that of its first token, as a share of
    the prompt; None for tasks whose gold is spread over the prompt.

    `num_evidence` counts the facts that the answer needs. `distance` is the intended distance between the first and the last of
    them, from 0 (together) to 1 (at both ends of the text), and `distance_tokens` the tokens between their first tokens. None
    where a task does not control it.

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
    num_evidence: int | None = None
    distance: float | None = None
    distance_tokens: int | None = None

    @property
    def prompt_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the prompt's tokens: equal prompts of different arms have the same."""
        return hashlib.sha256(np.asarray(self.tokens, "<i4").tobytes()).hexdigest()[:16]
