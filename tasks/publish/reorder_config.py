"""Make the `chunk_reorder.json` of a release from the run's parameters and measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from data_schemas.params import PipelineParams
from data_schemas.reorder import ChunkingAdvice, RecallPoint, ReorderConfig, ReorderDecision, SimpleStrategy
from data_schemas.serving_advice import ServingAdvice
from tasks.reorder.advised import advised_passages
from tasks.reorder.config import golden_permutations
from tasks.reorder.recall_curve import why_not_calibrated

# Share of the context length for a piece that is summarised; the rest is for instructions and summary.
_SUMMARISED_SHARE = 0.75
# If training cut nothing below the whole context: ten passages of a sixteenth leave three eighths to question and answer.
_PASSAGES_PER_CONTEXT = 16
_NO_PASSAGES = "serving_advice.json advises no passages for any kind of question, so none of the compared sizes and orders is shown to win."


def make_config(
    params: PipelineParams,
    curve: Sequence[RecallPoint],
    validated: ReorderDecision | None = None,
    advice: ServingAdvice | None = None,
) -> ReorderConfig:
    """The config of a release; `curve` is the measured recall of the published model.

    If the strategies were compared, the strategy is that of `validated` (from
    `tasks.evaluate.statistics.reorder_choice.choose_default`); `params.publish.reorder_strategy` is then only noted.

    Passages are cut as `advice` says, if it advises any. An order that it shows to win, for these passages and the retriever's
    ranks, takes the place of another one, and `validated` is then empty: its evidence is in `serving_advice.json`. The schema
    stays as it is, so readers that do not know the advice go on.
    """
    asked = params.publish.reorder_strategy
    strategy = asked if validated is None else validated.strategy
    chunking, note = _chunking_advice(params)
    told = []
    if advice is not None:
        passages = advised_passages(advice)
        told = [_NO_PASSAGES if passages is None else passages.sentence]
        if passages is not None:
            chunking, note = passages.settings.chunking, ""
            won = passages.order_for_release
            if won is not None and won != strategy:
                told.append(f"This order takes the place of {strategy}.")
                strategy, validated, asked = won, None, won
    notes = [
        why_not_calibrated(curve) if strategy == "calibrated" else "",
        _why_not_as_asked(asked, strategy, validated),
        note,
        *told,
    ]
    return ReorderConfig(
        strategy=strategy,
        context_length=params.model.target_length,
        chunking=chunking,
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
    found = f"{strategy} was measured to be better" if validated.is_distinguishable else "no order was measurably better"
    return f"{asked} was requested, but {found}, so it is {strategy}."


def _chunking_advice(params: PipelineParams) -> tuple[ChunkingAdvice, str]:
    chunking = params.chunking
    note = ""
    budget = max(1, params.model.target_length // _PASSAGES_PER_CONTEXT)
    if params.chunk_tokens <= budget:
        budget = params.chunk_tokens
    else:
        note = (
            f"Training cut only documents of more than {params.chunk_tokens} tokens, so the passage budget is a sixteenth of the "
            "context: ten passages leave room for question and answer."
        )
    overlap = chunking.overlap_fraction if chunking.strategy == "overlap" else 0.0
    return ChunkingAdvice(strategy=chunking.strategy, max_tokens=budget, overlap_fraction=overlap), note


def _summarisation_advice(params: PipelineParams) -> ChunkingAdvice:
    """Pieces as long as the window allows, without overlap, which would count twice in a summary."""
    budget = max(1, int(params.model.target_length * _SUMMARISED_SHARE))
    return ChunkingAdvice(strategy="semantic", max_tokens=budget, overlap_fraction=0.0)
