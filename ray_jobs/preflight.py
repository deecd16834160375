"""The checks of one Ray job before its first stage; `flows.check_inputs` runs them too, with those that need no job."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams

if TYPE_CHECKING:
    from ray_jobs.finetune.proof.prove import Proof


def refuse_missing_layers(params: PipelineParams) -> None:
    """UserError for layers and heads in full attention that the base's config.json does not have. It loads neither torch nor
    transformers."""
    from ray_jobs.finetune.full_layers import refuse_missing
    from tasks.model.stated_sizes import stated_sizes

    refuse_missing(params.training, *stated_sizes(params.model))


def refuse_untrainable(params: PipelineParams) -> Proof:
    """The proof that the base is trained exactly. UserError if it fails, or if base model, RoPE method, short rows, layers in full
    attention, loss weighting, LoRA targets or packing settings cannot work. Of `training.stages`, the last one has what concerns them all.
    """
    refuse_missing_layers(params)  # before imports that take seconds
    from ray_jobs.finetune.full_layers import check_full_layers
    from ray_jobs.finetune.grouped_layers import base_layers_in_groups
    from ray_jobs.finetune.planning.second_pass import check_weighting
    from ray_jobs.finetune.proof.prove import refuse_unproven
    from ray_jobs.finetune.short_window_rules import check_short_windows
    from ray_jobs.finetune.training.lora import check_targets
    from tasks.evaluate.prompts.chat import asked_chat
    from tasks.model.base_model import check_weights, load_config, load_tokenizer
    from tasks.model.extended import rope_plan_for
    from tasks.model.vocabulary import refuse_unknown_ids
    from tasks.pack.conversation_sequences import check_instructions
    from tasks.pack.settings import check_packing, check_settings
    from tasks.retrieval.settings import check_retrieval
    from tasks.rope_search.plans import with_stand_in

    *asked, last = params.by_stage()
    params = with_stand_in(last)
    rope_plan_for(params.model)
    earlier = [refuse_stage(number, stage) for number, stage in enumerate(asked)]
    check_short_windows(params)
    check_weighting(params)
    check_packing(params)
    tokenizer = load_tokenizer(params.model)
    for stage in (*earlier, params):
        check_retrieval(stage, tokenizer)
    check_weights(params.model)
    refuse_unknown_ids(tokenizer, load_config(params.model), params.model.base)
    check_instructions(params, tokenizer)
    asked_chat(params, tokenizer)
    check_full_layers(params.training, load_config(params.model).get_text_config(), partial(base_layers_in_groups, params))
    check_targets(params)
    check_settings(params)
    return refuse_unproven(params)


def refuse_stage(number: int, params: PipelineParams) -> PipelineParams:
    """UserError for what an earlier training stage has for itself: its RoPE, its search and its rows.

    Returns the stage with a stand-in for a search.
    """
    from ray_jobs.finetune.planning.second_pass import check_weighting
    from ray_jobs.finetune.short_window_rules import check_short_windows
    from tasks.model.extended import rope_plan_for
    from tasks.pack.settings import check_packing
    from tasks.rope_search.plans import with_stand_in

    length = params.model.target_length
    try:
        params = with_stand_in(params)
        rope_plan_for(params.model)
        check_short_windows(params)
        check_weighting(params)
        check_packing(params)
    except UserError as error:
        raise UserError(f"training.stages[{number}] ({length} tokens): {error}") from error
    return params


def refuse_unaskable(params: PipelineParams) -> None:
    """UserError if a benchmark's package or a file of `evaluation.published_data` is missing here, or `evaluation.qa_file` cannot
    be read."""
    from ray_jobs.evaluate.lm_eval import refuse_unavailable
    from tasks.evaluate.prompts.qa import read_qa
    from tasks.evaluate.published.files import refuse_missing

    refuse_unavailable(params.evaluation, params.evaluation.arms)
    refuse_missing(params.evaluation)
    if params.evaluation.qa_file:
        read_qa(params.evaluation.qa_file)


def refuse_unadvisable(params: PipelineParams) -> None:
    """UserError if the advice's embedding model, or a file of questions, is missing here, or passages cannot fit a window."""
    from pathlib import Path

    from ray_jobs.advise.advice_key import qa_file
    from tasks.chunk.similarity import refuse_unusable

    if params.advise.embedding_model:
        refuse_unusable(params.advise.embedding_model, "advise.embedding_model")
    given = qa_file(params)
    if given and not Path(given[0]).expanduser().is_file():
        raise UserError(f"{given[1]} {given[0]} is not there: give an existing file of questions, or leave it out.")
    _refuse_passages_beyond_a_window(params)


def _refuse_passages_beyond_a_window(params: PipelineParams) -> None:
    from tasks.model.extended import base_window

    advise = params.advise
    if advise.passage_tokens is None or {*advise.ways} == {"full"}:
        return
    of_base = "base" in advise.arms
    window = base_window(params.model) if of_base else params.model.target_length
    room = window - advise.answer_tokens
    if advise.passage_tokens >= room:
        which, remedy = ("base's", ", or remove base from advise.arms") if of_base else ("extended", "")
        raise UserError(
            f"advise.passage_tokens is {advise.passage_tokens}, but passages, question and answer must fit the {which} window of {window} "
            f"tokens with advise.answer_tokens {advise.answer_tokens}: give less than {room}{remedy}."
        )
