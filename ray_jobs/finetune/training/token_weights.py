"""How much each target token counts in the training loss, by its left context.

A target's left context c is the number of tokens before it in its own document: all that it can attend to, however long the row is.
In packed rows most targets have a short one.

    EXACT (arXiv 2605.10544)    targets with c >= F are long; F is the base's window by default. They are sorted into buckets
                                [F, 2F) [2F, 4F) ... and share an extra weight of `extra_mass` x all targets: the same for each
                                bucket that is not empty, and within a bucket the same for each target. So a target's extra
                                weight is inverse to the frequency of its bucket. Short targets keep weight 1. Where the shards
                                state weights of their own, a target counts as often as its own weight says.

Frequencies are those of all training rows, so a target's weight does not depend on the step, the rows beside it or the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from data_schemas.errors import UserError
from ray_jobs.finetune.segments import document_starts
from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.chunked_loss import Weigh

_MAX_WEIGHT = 16.0
_MOST_BUCKETS = 32

TokenLosses = Callable[[MicroBatch], torch.Tensor]
"""-log p of each place's target, [T], with full attention and without gradients."""


class TokenWeights(Protocol):
    """A rule for the weights."""

    @property
    def mean_weight(self) -> float:
        """What the gradient is divided by, so that it is on average as large as without weights."""
        ...

    def of_batch(self, batch: MicroBatch, token_losses: TokenLosses) -> Weigh:
        """The weights of one micro batch's targets."""
        ...


class CappedWeights(TokenWeights, Protocol):
    """A rule that states the largest weight it gives."""

    @property
    def max_weight(self) -> float: ...


def left_context(position_ids: torch.Tensor) -> torch.Tensor:
    """int64 [T]: tokens that the target of each place has before it in its document, for `position_ids` [1, T]."""
    starts = document_starts(position_ids)
    tokens = torch.arange(starts.numel(), device=starts.device)
    return tokens - torch.where(starts, tokens, 0).cummax(0).values + 1


@dataclass(frozen=True)
class ExactWeights:
    """EXACT: `weights[k]` for targets with a left context in `[first_context x 2^k, first_context x 2^(k+1))`, 1 below.

    `mean_weight`: over the targets as they count, so times the mean of the stated weights it is the mean of both together, if
    `max_weight` cuts none of the products.
    """

    first_context: int
    weights: tuple[float, ...]
    mean_weight: float
    max_weight: float = _MAX_WEIGHT

    def of_batch(self, batch: MicroBatch, token_losses: TokenLosses) -> Weigh:
        context = left_context(batch.position_ids)
        bounds = context.new_tensor([self.first_context << k for k in range(len(self.weights))])
        table = torch.tensor((1.0, *self.weights), dtype=torch.float32, device=context.device)
        of_places = table[torch.bucketize(context, bounds, right=True)]
        return lambda places, losses: of_places[places]

    def of_contexts(self, context: np.ndarray) -> np.ndarray:
        """float64: the weights of targets with these left contexts, as `of_batch` gives them."""
        bounds = self.first_context << np.arange(len(self.weights), dtype=np.int64)
        found: np.ndarray = np.array([1.0, *self.weights])[np.searchsorted(bounds, context, side="right")]
        return found


def exact_weights(
    rows: Iterable[Mapping[str, np.ndarray]], first_context: int, extra_mass: float, max_weight: float | None = None
) -> ExactWeights:
    """The weights for rows with sequences of the lengths `seq_lengths`, int [num_sequences] each.

    Targets of a row with `loss_weights`, float [num_tokens], count as much as these say, all others 1. A weight above `max_weight`
    (16 by default) is lowered to it, and what it gives up goes to the other buckets. The sum of all weights is (1 + `extra_mass`) x all
    targets, or less if every bucket is at its maximum. UserError if no target that counts is long.
    """
    first = first_context << np.arange(_MOST_BUCKETS, dtype=np.int64)
    counts, num_targets, longest = np.zeros(_MOST_BUCKETS), 0.0, 0
    for row in rows:
        lengths = np.asarray(row["seq_lengths"], np.int64)
        longest = max(longest, int(lengths.max()))
        if "loss_weights" in row:
            context = np.concatenate([np.arange(length) for length in lengths])
            stated = np.where(context > 0, np.asarray(row["loss_weights"], np.float64), 0.0)  # a first token is no target
            buckets = np.searchsorted(first, context, side="right")  # 0: short
            counts += np.bincount(buckets, stated, _MOST_BUCKETS + 1)[1:]
            num_targets += float(stated.sum())
        else:
            counts += np.clip(lengths[:, None] - first, 0, first).sum(0)  # targets have 1 to length - 1 tokens before them
            num_targets += int(lengths.sum()) - len(lengths)
    if not counts.any():
        why = (
            f"because the longest sequence in the training rows has {longest}"
            if longest <= first_context
            else "because none that far in its sequence is learned"
        )
        raise UserError(
            f"training.loss_weighting exact finds no target with {first_context} tokens of left context, {why}: set "
            "training.loss_long_from to less, or train on longer documents."
        )
    counts = counts[: int(np.flatnonzero(counts)[-1]) + 1]
    most = max_weight or _MAX_WEIGHT
    extra = _shares(counts, extra_mass * num_targets, most - 1)
    return ExactWeights(first_context, tuple((1 + extra).tolist()), 1 + float(extra @ counts) / num_targets, most)


def _shares(counts: np.ndarray, mass: float, most: float) -> np.ndarray:
    """float64 [K]: the extra weight of a target in each bucket, at most `most`; 0 for an empty bucket. `counts` may be weighted."""
    extra = np.zeros(len(counts))
    is_open = counts > 0
    while is_open.any():
        extra[is_open] = mass / (is_open.sum() * counts[is_open])
        too_heavy = is_open & (extra > most)
        if not too_heavy.any():
            break
        extra[too_heavy] = most
        mass -= most * float(counts[too_heavy].sum())
        is_open &= ~too_heavy
    return extra
