"""Weights that the shards state for their tokens, such as those of a retrieval document's answers, times those of another rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.chunked_loss import Weigh
from ray_jobs.finetune.training.token_weights import TokenLosses, TokenWeights


@dataclass(frozen=True)
class StatedWeights:
    """The weights of `MicroBatch.loss_weights`, whose mean is 1 in each document; `rule` weights tokens further, if there is one."""

    rule: TokenWeights | None = None

    @property
    def mean_weight(self) -> float:
        return 1.0 if self.rule is None else self.rule.mean_weight

    def of_batch(self, batch: MicroBatch, token_losses: TokenLosses) -> Weigh:
        of_targets = torch.ones(batch.input_ids.shape[1], device=batch.input_ids.device)
        if batch.loss_weights is not None:
            of_targets[:-1] = batch.loss_weights[0, 1:]
        if self.rule is None:
            return lambda places, losses: of_targets[places]
        further = self.rule.of_batch(batch, token_losses)
        return lambda places, losses: of_targets[places] * further(places, losses)
