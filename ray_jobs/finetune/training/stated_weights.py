"""Weights that the shards state for their tokens, such as those of a document's answers, times those of another rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.chunked_loss import Weigh
from ray_jobs.finetune.training.token_weights import TokenLosses, TokenWeights


@dataclass(frozen=True)
class StatedWeights:
    """The weights of `MicroBatch.loss_weights`; `rule` weights tokens further, if there is one.

    `mean`: of the stated weights of all training targets. It is 1 unless there is instruction data.
    """

    rule: TokenWeights | None = None
    mean: float = 1.0

    @property
    def mean_weight(self) -> float:
        return self.mean if self.rule is None else self.mean * self.rule.mean_weight

    def of_batch(self, batch: MicroBatch, token_losses: TokenLosses) -> Weigh:
        of_targets = torch.ones(batch.input_ids.shape[1], device=batch.input_ids.device)
        if batch.loss_weights is not None:
            of_targets[:-1] = batch.loss_weights[0, 1:]
        if self.rule is None:
            return lambda places, losses: of_targets[places]
        further = self.rule.of_batch(batch, token_losses)
        return lambda places, losses: of_targets[places] * further(places, losses)
