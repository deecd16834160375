"""From which left context `training.loss_weighting` counts, and what it cannot weight: known before anything is read."""

from __future__ import annotations

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams


def first_long_context(params: PipelineParams) -> int:
    """The left context in tokens from which `training.loss_weighting` changes a target's weight."""
    from tasks.model.extended import rope_plan_for

    return params.training.loss_long_from or rope_plan_for(params.model).base_window


def check_weighting(params: PipelineParams, window: int | None = None) -> None:
    """UserError if no target of a full row has a left context that `training.loss_weighting` counts as long.

    `window`: the base's, where it is known without its RoPE plan.
    """
    weighting = params.training.loss_weighting
    if weighting == "none":
        return
    first = params.training.loss_long_from or window or first_long_context(params)
    if first >= params.row_tokens:
        raise UserError(
            f"training.loss_weighting {weighting} weights targets with {first} tokens of left context or more, the base's window, but "
            f"rows have {params.row_tokens} tokens: set training.loss_long_from to less than that."
        )
