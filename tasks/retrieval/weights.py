"""Loss weights that give answers a stated share of a document's loss."""

from __future__ import annotations

import numpy as np


def loss_weights(is_answer: np.ndarray, answer_share: float) -> np.ndarray:
    """float32 [num_tokens]: the weight of each token as a target, with a mean of 1 over all targets.

    `is_answer` is bool [num_tokens]. The first token is not a target. Answers have `answer_share` of the weight in sum, or all or nothing
    where only one kind of target exists.
    """
    weights = np.ones(len(is_answer), np.float32)
    targets = is_answer[1:]
    num_answers, num_others = int(targets.sum()), int((~targets).sum())
    if num_answers and num_others:
        total = len(targets)
        of_targets = np.where(targets, answer_share * total / num_answers, (1 - answer_share) * total / num_others)
        weights[1:] = of_targets
    return weights
