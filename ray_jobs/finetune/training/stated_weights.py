"""Weights that the shards state for their tokens, such as those of a document's answers, times those of another rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.chunked_loss import Weigh
from ray_jobs.finetune.training.token_weights import CappedWeights, ExactWeights, TokenLosses


@dataclass(frozen=True)
class StatedWeights:
    """The weights of `MicroBatch.loss_weights`; `rule` weights tokens further, if there is one.

    The product of both is at most the rule's maximum, or the stated weight where that is more. `mean`: of the stated weights of all
    training targets. It is 1 unless there is instruction data. `mean_cut`: what the maximum takes from the mean of the products.
    """

    rule: CappedWeights | None = None
    mean: float = 1.0
    mean_cut: float = 0.0

    @property
    def mean_weight(self) -> float:
        return self.mean if self.rule is None else self.mean * self.rule.mean_weight - self.mean_cut

    def of_batch(self, batch: MicroBatch, token_losses: TokenLosses) -> Weigh:
        of_targets = torch.ones(batch.input_ids.shape[1], device=batch.input_ids.device)
        if batch.loss_weights is not None:
            of_targets[:-1] = batch.loss_weights[0, 1:]
        if self.rule is None:
            return lambda places, losses: of_targets[places]
        further, most = self.rule.of_batch(batch, token_losses), of_targets.clamp(min=self.rule.max_weight)
        return lambda places, losses: torch.minimum(of_targets[places] * further(places, losses), most[places])


def mean_cut(rows: Iterable[Mapping[str, np.ndarray]], rule: ExactWeights) -> float:
    """What the rule's maximum takes from the products with the stated weights of `rows`, on average over all their targets."""
    cut, num_targets = 0.0, 0
    for row in rows:
        lengths = np.asarray(row["seq_lengths"], np.int64)
        num_targets += int(lengths.sum()) - len(lengths)
        if "loss_weights" in row:
            context = np.concatenate([np.arange(length) for length in lengths])
            stated = np.where(context > 0, np.asarray(row["loss_weights"], np.float64), 0.0)  # a first token is no target
            above = stated * rule.of_contexts(context) - np.maximum(stated, rule.max_weight)
            cut += float(np.maximum(above, 0).sum())
    return cut / max(1, num_targets)
