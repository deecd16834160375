"""Loss weights that give answers a stated share of a document's loss."""

from __future__ import annotations

import numpy as np


def loss_weights(is_answer: np.ndarray, is_invented: np.ndarray, answer_share: float) -> np.ndarray:
    """float32 [num_tokens]: the weight of each token as a target, with a mean of 1 over all targets.

    `is_answer` and `is_invented` are bool [num_tokens]. The first token is not a target. Answers have `answer_share` of the weight in
    sum, or all or nothing where only one kind of target exists. Invented text has none unless it is an answer: what nothing predicts
    teaches nothing, and its noise would hide what the rest teaches.
    """
    weights = np.ones(len(is_answer), np.float32)
    targets, others = is_answer[1:], ~(is_answer | is_invented)[1:]
    num_answers, num_others = int(targets.sum()), int(others.sum())
    if num_answers and num_others:
        total = len(targets)
        weights[1:] = targets * (answer_share * total / num_answers) + others * ((1 - answer_share) * total / num_others)
    return weights
