"""Log-probabilities and most likely tokens from logits. Letters: K target tokens, V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

# At most this many logits at once, over all windows of a forward pass: 256 MB in float32.
MAX_LOGITS = 64 * 1024 * 1024


@dataclass(frozen=True)
class TargetScores:
    """`logprobs` float64 [K], nats; `greedy_ids` int64 [K]: the most likely token at each target position."""

    logprobs: np.ndarray
    greedy_ids: np.ndarray


def target_scores(logits_KV: torch.Tensor, targets: np.ndarray) -> TargetScores:
    """Scores of `targets` [K], each predicted by its row of logits."""
    targets_K = torch.from_numpy(np.asarray(targets, np.int64)).to(logits_KV.device)
    return TargetScores(logprobs_of(logits_KV, targets_K), logits_KV.argmax(dim=-1).cpu().numpy())


def logprobs_of(logits_KV: torch.Tensor, targets_K: torch.Tensor) -> np.ndarray:
    """float64 [K], nats."""
    logits = logits_KV.float()
    logprobs: np.ndarray = (logits.gather(1, targets_K[:, None])[:, 0] - torch.logsumexp(logits, dim=-1)).double().cpu().numpy()
    return logprobs
