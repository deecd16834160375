"""What LongCE's second forward pass costs.

The second pass reads windows of a short context, with full attention in each and without gradients.
"""

from __future__ import annotations

import numpy as np

from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.flops import ModelCost
from ray_jobs.finetune.weighting_rules import first_long_context


def second_pass_flops(params: PipelineParams, cost: ModelCost, lengths: np.ndarray) -> float:
    """Operations of a step's second pass over sequences of `lengths` int [num_sequences]; 0 without LongCE."""
    from ray_jobs.finetune.training.long_ce import short_windows

    if params.training.loss_weighting != "long_ce":
        return 0.0
    parts = short_windows(lengths, first_long_context(params))
    return sum(cost.forward_flops(part.ranges[:, 1] - part.ranges[:, 0]) for part in parts)
