"""Loss weights that give answers a stated share of a document's loss."""

from __future__ import annotations

import numpy as np

# Of an answer's token. With few answers in a long document the stated share would be thousands for a token, so that a step would learn
# little but these few tokens. `training.loss_max_weight` is as much for EXACT.
MAX_ANSWER_WEIGHT = 16.0


def loss_weights(is_answer: np.ndarray, is_invented: np.ndarray, answer_share: float) -> np.ndarray:
    """float32 [num_tokens]: the weight of each token as a target, with a mean of 1 over all targets.

    `is_answer` and `is_invented` are bool [num_tokens]. The first token is not a target. Answers have `answer_share` of the weight in
    sum, but none more than MAX_ANSWER_WEIGHT, or all or nothing where only one kind of target exists; the others have the rest.
    Invented text has none unless it is an answer: what nothing predicts teaches nothing, and its noise would hide what the rest teaches.
    """
    weights = np.ones(len(is_answer), np.float32)
    targets, others = is_answer[1:], ~(is_answer | is_invented)[1:]
    num_answers, num_others = int(targets.sum()), int(others.sum())
    if num_answers and num_others:
        total = len(targets)
        of_answer = min(answer_share * total / num_answers, MAX_ANSWER_WEIGHT)
        weights[1:] = targets * of_answer + others * ((total - of_answer * num_answers) / num_others)
    return weights


def reached_share(weights: np.ndarray, is_answer: np.ndarray) -> float:
    """The share of the weights of `loss_weights` that is on answers."""
    return float(weights[1:][is_answer[1:]].sum(dtype=np.float64) / weights[1:].sum(dtype=np.float64))
