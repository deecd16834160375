"""Making a `chunk_reorder.json` from parameters and measurements, and reading one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.publish_params import ReorderStrategy
from data_schemas.releases import resolve_release
from data_schemas.reorder import (
    GOLDEN_SIZES,
    REORDER_FILE_NAME,
    ChunkingAdvice,
    RecallPoint,
    ReorderConfig,
    ReorderDecision,
    SimpleStrategy,
)
from tasks.reorder.permutations import permutation
from tasks.reorder.recall_curve import why_not_calibrated

# Of the context length, for a piece that is summarised: the rest holds instructions and summary.
_SUMMARISED_SHARE = 0.75
# Where training cut nothing below the whole context: ten passages of a sixteenth leave three eighths to question and answer.
_PASSAGES_PER_CONTEXT = 16


def make_config(
    params: PipelineParams, curve: Sequence[RecallPoint], validated: ReorderDecision | None = None
) -> ReorderConfig:
    """The config of a release; `curve` is the measured recall of the published model.

    Where the strategies were measured, `validated` (from `tasks.evaluate.statistics.reorder_choice.choose_default`) decides instead of
    `params.publish.reorder_strategy`, which then stands in the note.
    """
    asked = params.publish.reorder_strategy
    strategy = asked if validated is None else validated.strategy
    advice, note = _chunking_advice(params)
    notes = [
        why_not_calibrated(curve) if strategy == "calibrated" else "",
        _why_not_as_asked(asked, strategy, validated),
        note,
    ]
    return ReorderConfig(
        strategy=strategy,
        context_length=params.model.target_length,
        chunking=advice,
        summarisation=_summarisation_advice(params),
        validated=validated,
        recall_by_position=tuple(curve),
        golden=golden_permutations(strategy, curve),
        golden_by_strategy={simple: golden_permutations(simple) for simple in get_args(SimpleStrategy)},
        note=" ".join(filter(None, notes)),
    )


def _why_not_as_asked(asked: str, strategy: str, validated: ReorderDecision | None) -> str:
    if validated is None or strategy == asked:
        return ""
    found = f"{strategy} was measured to be better" if validated.is_distinguishable else "no order was distinguishable"
    return f"Asked for was {asked}; {found}, so it is {strategy}."


def golden_permutations(strategy: ReorderStrategy, curve: Sequence[RecallPoint] = ()) -> dict[str, tuple[int, ...]]:
    """The permutations for one to ten passages, keyed by their number as JSON wants it."""
    return {str(n): tuple(permutation(strategy, n, curve)) for n in GOLDEN_SIZES}


def to_json(config: ReorderConfig) -> str:
    """The file's text."""
    return config.model_dump_json(indent=1) + "\n"


def read_config(path: Path) -> ReorderConfig:
    """From a `chunk_reorder.json`, a release folder, or a `releases/NAME` folder, whose `current` is followed.

    Raises UserError if there is none, or it does not keep to the schema.
    """
    file = resolve_release(path) / REORDER_FILE_NAME if path.is_dir() else path
    try:
        return ReorderConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(
            f"Cannot read the reorder config {file} ({error.strerror}): give a {REORDER_FILE_NAME} or the folder of a release."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{file} is not a reorder config of schema version 1 ({where}: {first['msg']}): take the file of a release as it is."
        ) from error


def _chunking_advice(params: PipelineParams) -> tuple[ChunkingAdvice, str]:
    chunking = params.chunking
    note = ""
    budget = max(1, params.model.target_length // _PASSAGES_PER_CONTEXT)
    if params.chunk_tokens <= budget:
        budget = params.chunk_tokens
    else:
        note = (
            f"Training cut only what exceeded {params.chunk_tokens} tokens; the passage budget is a sixteenth of the context, "
            "so that ten passages leave room for question and answer."
        )
    overlap = chunking.overlap_fraction if chunking.strategy == "overlap" else 0.0
    return ChunkingAdvice(strategy=chunking.strategy, max_tokens=budget, overlap_fraction=overlap), note


def _summarisation_advice(params: PipelineParams) -> ChunkingAdvice:
    """Pieces as long as the window allows, cut where the text is, none said twice: an overlap would weigh double in a summary."""
    budget = max(1, int(params.model.target_length * _SUMMARISED_SHARE))
    return ChunkingAdvice(strategy="semantic", max_tokens=budget, overlap_fraction=0.0)
