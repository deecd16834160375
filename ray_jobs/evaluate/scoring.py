"""Log-probabilities of the last tokens of windows, by one teacher-forced forward pass each.

Only the logits that predict target tokens are computed: those of 128k positions over a vocabulary of 128k would be
67 GB. Letters of tensor names: B windows in a batch, L tokens in a window, K target tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# At most this many logits at once, over all windows of a batch: 256 MB in float32.
MAX_LOGITS = 64 * 1024 * 1024


@dataclass(frozen=True)
class TargetScores:
    """`logprobs` float64 [K], nats; `greedy_ids` int64 [K]: the most likely token at each target position."""

    logprobs: np.ndarray
    greedy_ids: np.ndarray


def score_batches(
    model: Any, windows: Sequence[np.ndarray], num_targets: Sequence[int], *, batch_tokens: int
) -> Iterator[list[TargetScores]]:
    """Score the last `num_targets[i]` tokens of `windows[i]`, in order, one list a forward pass.

    Args:
        model: a causal language model of transformers, in eval mode. It is called without attention mask or position
            ids, so every token sees the whole window in front of it.
        windows: token ids, all of one length L.
        num_targets: 1 <= num_targets[i] < L, since the first token is predicted by nothing.
        batch_tokens: tokens in one forward pass, at least one window.
    """
    if not windows:
        return
    length = len(windows[0])
    if any(len(window) != length for window in windows):
        raise ValueError("windows of one call must have one length")
    if not all(1 <= n < length for n in num_targets):
        raise ValueError(f"target counts must lie in 1..{length - 1}")
    vocab_size = model.config.get_text_config().vocab_size
    rows = max(1, min(batch_tokens // length, MAX_LOGITS // (vocab_size * (max(num_targets) + 1))))
    for start in range(0, len(windows), rows):
        yield _score_batch(model, windows[start : start + rows], num_targets[start : start + rows])


@torch.inference_mode()
def _score_batch(model: Any, windows: Sequence[np.ndarray], num_targets: Sequence[int]) -> list[TargetScores]:
    ids_BL = torch.from_numpy(np.stack(windows).astype(np.int64)).to(model.device)
    keep = max(num_targets) + 1
    logits_BKV = _last_logits(model, ids_BL, keep)[:, :-1]
    targets_BK = ids_BL[:, 1 - keep :]
    scores = []
    for logits_KV, targets_K, n in zip(logits_BKV, targets_BK, num_targets, strict=True):
        logits = logits_KV[-n:].float()
        logprobs = logits.gather(1, targets_K[-n:, None])[:, 0] - torch.logsumexp(logits, dim=-1)
        scores.append(TargetScores(logprobs.double().cpu().numpy(), logits.argmax(dim=-1).cpu().numpy()))
    return scores


def _last_logits(model: Any, ids_BL: torch.Tensor, keep: int) -> torch.Tensor:
    """Logits of the last `keep` positions, [B, keep, V]; older architectures compute them all first."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(input_ids=ids_BL, use_cache=False, logits_to_keep=keep).logits
    else:
        logits = model(input_ids=ids_BL, use_cache=False).logits
    last: torch.Tensor = logits[:, -keep:]
    return last
