"""Log-probabilities of the last tokens of windows, by teacher-forced forward passes.

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

from ray_jobs.evaluate.prefixes import PrefixCache, Visit, can_share, forget_lengths, order_by_prefix, runs_worth_sharing

# At most this many logits at once, over all windows of a batch: 256 MB in float32.
MAX_LOGITS = 64 * 1024 * 1024


@dataclass(frozen=True)
class Window:
    """`tokens` int32 [L]; the last `num_targets` of them are scored, 1 <= num_targets < L: nothing predicts the first."""

    tokens: np.ndarray
    num_targets: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_targets < len(self.tokens):
            raise ValueError(f"target counts must lie in 1..{len(self.tokens) - 1}")


@dataclass(frozen=True)
class TargetScores:
    """`logprobs` float64 [K], nats; `greedy_ids` int64 [K]: the most likely token at each target position."""

    logprobs: np.ndarray
    greedy_ids: np.ndarray


def score_windows(model: Any, windows: Sequence[Window], *, batch_tokens: int) -> Iterator[tuple[int, TargetScores]]:
    """Score every window; (its index, its scores) in the order in which they are done.

    Equal windows are computed once. Windows that begin alike are computed with a KV cache of their beginnings where the
    model allows it and it saves enough; the others in batches of one length, without padding, so that no result depends
    on a mask; there, lengths ascend.

    Args:
        model: a causal language model of transformers, in eval mode. It is called without attention mask or position
            ids, so every token sees the whole window in front of it.
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
    alone = list(range(len(windows)))
    runs: list[list[Visit]] = []
    if can_share(model):
        # the last token predicts nothing that is asked for, and the K before it are computed for their logits
        contexts = [w.tokens[:-1] for w in windows]
        visits = order_by_prefix(contexts, [w.num_targets for w in windows])
        runs, alone = runs_worth_sharing(visits, [len(context) for context in contexts])
    yield from _score_alone(model, windows, alone, batch_tokens)
    for run in runs:
        yield from _score_run(model, windows, run)


def _score_alone(
    model: Any, windows: Sequence[Window], indices: Sequence[int], batch_tokens: int
) -> Iterator[tuple[int, TargetScores]]:
    by_length: dict[int, list[int]] = {}
    for index in indices:
        by_length.setdefault(len(windows[index].tokens), []).append(index)
    for length in sorted(by_length):
        forget_lengths(model)
        same = by_length[length]
        rows = _rows(model, length, max(windows[i].num_targets for i in same), batch_tokens)
        for start in range(0, len(same), rows):
            batch = same[start : start + rows]
            scores = _score_batch(model, [windows[i].tokens for i in batch], [windows[i].num_targets for i in batch])
            yield from zip(batch, scores, strict=True)


def _score_run(model: Any, windows: Sequence[Window], run: Sequence[Visit]) -> Iterator[tuple[int, TargetScores]]:
    cache = PrefixCache(model)
    for visit in run:
        window = windows[visit.index]
        with torch.inference_mode():
            logits_KV = cache.logits(window.tokens[:-1], visit.num_cached, window.num_targets)
            scores = target_scores(logits_KV, window.tokens[-window.num_targets :])
        yield visit.index, scores


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


def target_scores(logits_KV: torch.Tensor, targets: np.ndarray) -> TargetScores:
    """Scores of `targets` [K], each predicted by its row of logits."""
    targets_K = torch.from_numpy(targets.astype(np.int64)).to(logits_KV.device)
    return TargetScores(_logprobs(logits_KV, targets_K), logits_KV.argmax(dim=-1).cpu().numpy())


def _logprobs(logits_KV: torch.Tensor, targets_K: torch.Tensor) -> np.ndarray:
    logits = logits_KV.float()
    logprobs: np.ndarray = (logits.gather(1, targets_K[:, None])[:, 0] - torch.logsumexp(logits, dim=-1)).double().cpu().numpy()
    return logprobs


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

    The hidden states are computed once and the logits in pieces of at most `max_logits`. A model whose logits are not
    simply its output embedding of its last hidden states (soft-capping, scaling) gives all its logits at once.
    """
    ids_BL = torch.from_numpy(np.asarray(tokens, np.int64))[None].to(model.device)
    targets_L = ids_BL[0, 1:]
    if not len(targets_L):
        return np.empty(0)
    forget_lengths(model)
    if not _head_is_linear(model, ids_BL[:, :8]):
        return _logprobs(_last_logits(model, ids_BL, ids_BL.shape[1])[0, :-1], targets_L)
    head = model.get_output_embeddings()
    hidden_LE = model.base_model(input_ids=ids_BL, use_cache=False).last_hidden_state[0, :-1]
    piece = max(1, max_logits // model.config.get_text_config().vocab_size)
    return np.concatenate(
        [
            _logprobs(head(hidden), targets)
            for hidden, targets in zip(hidden_LE.split(piece), targets_L.split(piece), strict=True)
        ]
    )


def _head_is_linear(model: Any, probe_BL: torch.Tensor) -> bool:
    """Whether the output embedding of the base model's last hidden states is what the model gives as logits."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) or model.base_model is model or model.get_output_embeddings() is None:
        return False
    hidden = model.base_model(input_ids=probe_BL, use_cache=False)[0]
    if hidden.shape[-1] != model.get_output_embeddings().weight.shape[-1]:
        return False
    mine, own = model.get_output_embeddings()(hidden), model(input_ids=probe_BL, use_cache=False).logits
    return mine.shape == own.shape and torch.equal(mine, own)


@torch.inference_mode()
def greedy_next(model: Any, ids_BL: torch.Tensor) -> torch.Tensor:
    """The most likely next token of each row, int64 [B], by a forward pass over all of it."""
    return _last_logits(model, ids_BL, 1)[:, -1].argmax(dim=-1)
