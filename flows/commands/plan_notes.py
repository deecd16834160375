"""What `ropeway plan` notes of parameters that work and that a user may not have meant."""

from data_schemas.params import PipelineParams
from tasks.model.rope_methods import unusual_extension, unusual_rope_length


def foreseen_notes(params: PipelineParams, base_window: int) -> list[str]:
    """One sentence each, about lengths, positions and warm-up. `params` are those of the whole run, with all training stages."""
    model = params.model
    found = unusual_extension(base_window, model.target_length)
    found += unusual_rope_length("model.rope_length", model.rope_length, model.target_length)
    for number, stage in enumerate(params.training.stages):
        found += unusual_rope_length(f"training.stages[{number}].rope_length", stage.rope_length, stage.target_length)
    return found + _of_positions(params) + _of_warm_up(params)


def _of_positions(params: PipelineParams) -> list[str]:
    target, row, skips = params.model.target_length, params.row_tokens, params.training.position_skipping > 1
    if row < target and not skips:
        return [
            f"packing.row_length is {row}, so training sees positions below {row} alone, and not those up to the target of {target}: set "
            "training.position_skipping, or leave packing.row_length empty"
        ]
    if row == target and skips:
        return [
            "training.position_skipping skips nothing in a document that fills a row, because rows are as long as the target: set a "
            "smaller packing.row_length"
        ]
    return []


def _of_warm_up(params: PipelineParams) -> list[str]:
    notes = [stage.training.warm_up_note for stage in params.by_stage()]
    if not params.training.stages:
        return [note for note in notes if note]
    return [f"training.stages[{number}]: {note}" for number, note in enumerate(notes) if note]
