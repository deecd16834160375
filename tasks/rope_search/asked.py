"""What cannot be searched by what was asked for and the base's config.json alone: refused before seconds of imports."""

from __future__ import annotations

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams


def refuse_search(params: PipelineParams) -> None:
    """UserError for a search asked for by name with stages or a factors file, or for a target within the window of an unscaled base."""
    if params.training.stages:
        raise UserError(
            "With training.stages, the factors of a stage are searched on the model of the stage before: `ropeway finetune` does that; or "
            "leave out training.stages to search on the base."
        )
    if params.model.rope_factors_file:
        raise UserError(
            "model.rope_factors_file gives the factors, so there is nothing to search: remove it, or run without search-rope."
        )
    from tasks.model.stated_sizes import stated_rope
    from tasks.rope_search.space import nothing_to_search

    base, target = stated_rope(params.model), params.model.target_length
    if base and target <= base.window:
        raise nothing_to_search(target, base.window)
