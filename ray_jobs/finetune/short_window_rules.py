"""What cannot be trained with rows of short documents, or without them: refused before anything is read."""

from __future__ import annotations

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from tasks.model.extended import rope_plan_for
from tasks.model.rope_methods import two_lists_refused


def check_short_windows(params: PipelineParams) -> None:
    """UserError where longrope's two lists would be trained without short rows, or where rows cannot be cut or turned by
    themselves."""
    plan, share = rope_plan_for(params.model), params.training.short_window_share
    if not share:
        if plan.has_short_rotation:
            raise two_lists_refused(plan.original_length)
        return
    if plan.method == "dynamic":
        raise UserError(
            "training.short_window_share cuts rows into short documents, and with rope_method dynamic these turn with the frequencies of "
            "the longest document beside them: set it to 0, or choose rope_method yarn."
        )
    if params.row_tokens <= plan.short_length:
        where = "the original length" if plan.has_short_rotation else "the base's window"
        raise UserError(
            f"training.short_window_share cuts documents at {where} of {plan.short_length} tokens, and rows have only "
            f"{params.row_tokens}: set it to 0, or make packing.row_length longer."
        )
    if plan.has_short_rotation and plan.layers:
        raise UserError(
            "This base has RoPE by layer type, for which rows cannot have their own frequencies: give long_factor as both lists in "
            "model.rope_factors_file, or choose rope_method yarn."
        )
