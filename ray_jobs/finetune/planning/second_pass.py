"""From which left context `training.loss_weighting` counts, and what LongCE's second forward pass costs.

The second pass reads windows of a short context, with full attention in each and without gradients.
"""

from __future__ import annotations

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.flops import ModelCost


def first_long_context(params: PipelineParams) -> int:
    """The left context in tokens from which `training.loss_weighting` changes a target's weight."""
    from tasks.model.extended import rope_plan_for

    return params.training.loss_long_from or rope_plan_for(params.model).base_window


def check_weighting(params: PipelineParams) -> None:
    """UserError if no target of a full row has a left context that `training.loss_weighting` counts as long."""
    weighting = params.training.loss_weighting
    if weighting != "none" and (first := first_long_context(params)) >= params.row_tokens:
        raise UserError(
            f"training.loss_weighting {weighting} weights targets with {first} tokens of left context or more, the base's window, but "
            f"rows have {params.row_tokens} tokens: set training.loss_long_from to less than that."
        )


def second_pass_flops(params: PipelineParams, cost: ModelCost, lengths: np.ndarray) -> float:
    """Operations of a step's second pass over sequences of `lengths` int [num_sequences]; 0 without LongCE."""
    from ray_jobs.finetune.training.long_ce import short_windows

    if params.training.loss_weighting != "long_ce":
        return 0.0
    parts = short_windows(lengths, first_long_context(params))
    return sum(cost.forward_flops(part.ranges[:, 1] - part.ranges[:, 0]) for part in parts)
