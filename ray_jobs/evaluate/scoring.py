"""Log-probabilities of the last tokens of windows, by teacher-forced forward passes.

Only the logits that predict target tokens are computed: those of 128k positions over a vocabulary of 128k would be
67 GB. Letters of tensor names: B windows in a batch, L tokens in a window, K target tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ray_jobs.evaluate.logprobs import MAX_LOGITS, TargetScores, logprobs_of, target_scores
from ray_jobs.evaluate.tree_passes import TreeScores, can_share
from tasks.model.output_layer import output_layer
from tasks.model.rotary_modules import forget_lengths

_known_heads: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Window:
    """`tokens` int32 [L]; the last `num_targets` of them are scored, 1 <= num_targets < L: nothing predicts the first."""

    tokens: np.ndarray
    num_targets: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_targets < len(self.tokens):
            raise ValueError(f"target counts must lie in 1..{len(self.tokens) - 1}")


def score_windows(model: Any, windows: Sequence[Window], *, batch_tokens: int) -> Iterator[tuple[int, TargetScores]]:
    """Score every window; (its index, its scores) in the order in which they are done.

    Equal windows are computed once. Where the model allows it, what windows have in common from the start is computed once too
    (see `tree_passes`). Else they are batched by length, ascending. Nothing is padded, so no result depends on a mask.

    Args:
        model: a causal language model of transformers, in eval mode. It is called without attention mask, so every token sees
            the whole window in front of it.
        windows: of any lengths.
        batch_tokens: tokens in one forward pass, at least one window.
    """
    copies: dict[tuple[bytes, int], list[int]] = {}
    for index, window in enumerate(windows):
        copies.setdefault((window.tokens.tobytes(), window.num_targets), []).append(index)
    indices_of = list(copies.values())
    different = [windows[indices[0]] for indices in indices_of]
    for place, scores in _score_different(model, different, batch_tokens):
        yield from ((index, scores) for index in indices_of[place])


def _score_different(model: Any, windows: Sequence[Window], batch_tokens: int) -> Iterator[tuple[int, TargetScores]]:
    if not can_share(model):
        yield from _score_alone(model, windows, batch_tokens)
    elif windows:
        # the last token predicts nothing that is asked for
        targets = [window.tokens[-window.num_targets :] for window in windows]
        yield from TreeScores(model, [window.tokens[:-1] for window in windows], targets, batch_tokens)


def _score_alone(model: Any, windows: Sequence[Window], batch_tokens: int) -> Iterator[tuple[int, TargetScores]]:
    by_length: dict[int, list[int]] = {}
    for index, window in enumerate(windows):
        by_length.setdefault(len(window.tokens), []).append(index)
    for length in sorted(by_length):
        forget_lengths(model)
        same = by_length[length]
        rows = _rows(model, length, max(windows[i].num_targets for i in same), batch_tokens)
        for start in range(0, len(same), rows):
            batch = same[start : start + rows]
            scores = _score_batch(model, [windows[i].tokens for i in batch], [windows[i].num_targets for i in batch])
            yield from zip(batch, scores, strict=True)


def _rows(model: Any, length: int, num_targets: int, batch_tokens: int) -> int:
    """Windows in one forward pass."""
    vocab_size = model.config.get_text_config().vocab_size
    return max(1, min(batch_tokens // length, MAX_LOGITS // (vocab_size * (num_targets + 1))))


@torch.inference_mode()
def _score_batch(model: Any, windows: Sequence[np.ndarray], num_targets: Sequence[int]) -> list[TargetScores]:
    ids_BL = torch.from_numpy(np.stack(windows).astype(np.int64)).to(model.device)
    keep = max(num_targets) + 1
    logits_BKV = _last_logits(model, ids_BL, keep)[:, :-1]
    return [
        target_scores(logits_KV[-n:], window[-n:])
        for logits_KV, window, n in zip(logits_BKV, windows, num_targets, strict=True)
    ]


def _last_logits(model: Any, ids_BL: torch.Tensor, keep: int) -> torch.Tensor:
    """Logits of the last `keep` positions, [B, keep, V]; older architectures compute them all first."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(input_ids=ids_BL, use_cache=False, logits_to_keep=keep).logits
    else:
        logits = model(input_ids=ids_BL, use_cache=False).logits
    last: torch.Tensor = logits[:, -keep:]
    return last


@torch.inference_mode()
def score_positions(model: Any, tokens: np.ndarray, *, max_logits: int = MAX_LOGITS) -> np.ndarray:
    """Log-probability, in nats, of every token given all before it: float64 [L-1] for `tokens` int32 [L].

    The hidden states are computed once and the logits in pieces of at most `max_logits`. A model that computes its logits in
    another way than `output_layer` gives all of them at once.
    """
    ids_BL = torch.from_numpy(np.asarray(tokens, np.int64))[None].to(model.device)
    targets_L = ids_BL[0, 1:]
    if not len(targets_L):
        return np.empty(0)
    forget_lengths(model)
    if not _head_is_known(model, ids_BL[:, :8]):
        return logprobs_of(_last_logits(model, ids_BL, ids_BL.shape[1])[0, :-1], targets_L)
    head = output_layer(model)
    hidden_LE = model.base_model(input_ids=ids_BL, use_cache=False).last_hidden_state[0, :-1]
    piece = max(1, max_logits // model.config.get_text_config().vocab_size)
    return np.concatenate(
        [
            logprobs_of(head(hidden), targets)
            for hidden, targets in zip(hidden_LE.split(piece), targets_L.split(piece), strict=True)
        ]
    )


def _head_is_known(model: Any, probe_BL: torch.Tensor) -> bool:
    """Whether `output_layer` of the base model's last hidden states is what the model gives as logits; tried once."""
    if model not in _known_heads:
        _known_heads[model] = _try_head(model, probe_BL)
    return _known_heads[model]


def _try_head(model: Any, probe_BL: torch.Tensor) -> bool:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) or model.base_model is model or model.get_output_embeddings() is None:
        return False
    hidden = model.base_model(input_ids=probe_BL, use_cache=False)[0]
    if hidden.shape[-1] != model.get_output_embeddings().weight.shape[-1]:
        return False
    mine, own = output_layer(model)(hidden), model(input_ids=probe_BL, use_cache=False).logits
    return mine.shape == own.shape and torch.equal(mine, own)


@torch.inference_mode()
def greedy_next(model: Any, ids_BL: torch.Tensor) -> torch.Tensor:
    """The most likely next token of each row, int64 [B], by a forward pass over all of it."""
    return _last_logits(model, ids_BL, 1)[:, -1].argmax(dim=-1)
