"""What cannot be trained with rows of short documents, or without them: refused before anything is read."""

from __future__ import annotations

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from tasks.model.extended import rope_plan_for
from tasks.model.rope_methods import two_lists_refused


def check_short_windows(params: PipelineParams) -> None:
    """UserError where longrope's two lists would be trained without short rows, or where rows cannot be cut or turned by themselves."""
    plan, share = rope_plan_for(params.model), params.training.short_window_share
    if share and plan.method == "dynamic":
        raise UserError(
            "training.short_window_share cuts rows into short documents, and with rope_method dynamic these turn with the frequencies of "
            "the longest document beside them: set it to 0, or choose rope_method yarn."
        )
    refuse_unfit_rows(params, plan.short_length, plan.has_short_rotation)
    if share and plan.has_short_rotation and plan.layers:
        raise UserError(
            "This base has RoPE by layer type, for which rows cannot have their own frequencies: give long_factor as both lists in "
            "model.rope_factors_file, or choose rope_method yarn."
        )


def refuse_unfit_rows(params: PipelineParams, short_length: int, two_lists: bool) -> None:
    """UserError for rows that are no longer than a short prompt, or two lists without short rows. `short_length`: of a `RopePlan`."""
    if not params.training.short_window_share:
        if two_lists:
            raise two_lists_refused(short_length)
        return
    if params.row_tokens <= short_length:
        where = "the original length" if two_lists else "the base's window"
        raise UserError(
            f"training.short_window_share cuts documents at {where} of {short_length} tokens, and rows have only "
            f"{params.row_tokens}: set it to 0, or make packing.row_length longer."
        )
