"""The checks of one Ray job before its first stage; `flows.check_inputs` runs them too, with those that need no job."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams

if TYPE_CHECKING:
    from ray_jobs.finetune.proof.prove import Proof


def refuse_at_once(params: PipelineParams) -> None:
    """UserError for what the parameters, their factors files and the base's config.json alone show to be wrong.

    That is layers and heads in full attention that the base does not have; and of a base in a folder with unscaled RoPE, lengths that
    are within its window, and factors that are not for its pairs. It loads neither torch nor transformers.
    """
    from ray_jobs.finetune.full_layers import refuse_missing
    from tasks.model.stated_sizes import stated_sizes

    refuse_missing(params.training, *stated_sizes(params.model))
    *earlier, last = params.by_stage()
    _refuse_stage_at_once(last)
    for number, stage in enumerate(earlier):
        try:
            _refuse_stage_at_once(stage)
        except UserError as error:
            raise UserError(params.told_of_stage(number, error)) from error


def _refuse_stage_at_once(params: PipelineParams) -> None:
    from data_schemas.addresses import is_remote
    from ray_jobs.finetune.short_window_rules import refuse_unfit_rows
    from ray_jobs.finetune.weighting_rules import check_weighting
    from tasks.model.base_lengths import nothing_to_extend
    from tasks.model.extended import factors_in_file, may_take_factors
    from tasks.model.rope_methods import factor_lists
    from tasks.model.stated_sizes import stated_rope
    from tasks.rope_search.space import nothing_to_search

    model = params.model
    file = model.rope_factors_file if may_take_factors(model) else None
    is_here = file is not None and not is_remote(file)
    factors = factors_in_file(model) if is_here else None
    if (base := stated_rope(model)) is None:
        return
    if model.target_length <= base.window:
        refused = nothing_to_search if params.searches_rope else nothing_to_extend
        raise refused(model.target_length, base.window)
    check_weighting(params, base.window)
    if file and (factors is None or base.num_pairs is None):
        return  # the plan finds whether there are two lists
    short, long = factor_lists(factors, base.num_pairs) if factors and base.num_pairs else ([], [])
    refuse_unfit_rows(params, base.window, two_lists=short != long)


def refuse_untrainable(params: PipelineParams) -> Proof:
    """The proof that the base is trained exactly. UserError if it fails, or if base model, RoPE method, short rows, layers in full
    attention, loss weighting, LoRA targets or packing settings cannot work. Of `training.stages`, the last one has what concerns them all.
    """
    refuse_at_once(params)  # before imports that take seconds
    from ray_jobs.finetune.full_layers import check_full_layers
    from ray_jobs.finetune.grouped_layers import base_layers_in_groups
    from ray_jobs.finetune.proof.prove import refuse_unproven
    from ray_jobs.finetune.short_window_rules import check_short_windows
    from ray_jobs.finetune.training.lora import check_targets
    from ray_jobs.finetune.weighting_rules import check_weighting
    from tasks.evaluate.prompts.chat import asked_chat
    from tasks.model.base_model import check_weights, load_config, load_tokenizer
    from tasks.model.extended import rope_plan_for
    from tasks.model.vocabulary import refuse_unknown_ids
    from tasks.pack.conversation_sequences import check_instructions
    from tasks.pack.settings import check_packing, check_settings
    from tasks.retrieval.settings import check_retrieval
    from tasks.rope_search.plans import with_stand_in

    run, stages = params, params.by_stage()
    params = with_stand_in(stages[-1])
    rope_plan_for(params.model)
    earlier = [refuse_stage(run, number) for number in range(len(stages) - 1)]
    check_short_windows(params)
    check_weighting(params)
    check_packing(params)
    tokenizer = load_tokenizer(params.model)
    for number, stage in enumerate((*earlier, params)):
        with run.naming_stage(number):
            check_retrieval(stage, tokenizer)
    refuse_samples(run, tokenizer)
    check_weights(params.model)
    refuse_unknown_ids(tokenizer, load_config(params.model), params.model.base)
    check_instructions(params, tokenizer)
    asked_chat(params, tokenizer)
    check_full_layers(params.training, load_config(params.model).get_text_config(), partial(base_layers_in_groups, params))
    check_targets(params)
    check_settings(params)
    return refuse_unproven(params)


def refuse_stage(run: PipelineParams, number: int) -> PipelineParams:
    """UserError for what an earlier training stage of `run` has for itself: its RoPE, its search and its rows.

    Returns the stage with a stand-in for a search.
    """
    from ray_jobs.finetune.short_window_rules import check_short_windows
    from ray_jobs.finetune.weighting_rules import check_weighting
    from tasks.model.extended import rope_plan_for
    from tasks.pack.settings import check_packing
    from tasks.rope_search.plans import with_stand_in

    with run.naming_stage(number):
        params = with_stand_in(run.by_stage()[number])
        rope_plan_for(params.model)
        check_short_windows(params)
        check_weighting(params)
        check_packing(params)
    return params


def refuse_samples(run: PipelineParams, tokenizer: Any) -> None:
    """UserError if needles and questions leave too little text in the samples of a search, that of each training stage included."""
    from tasks.rope_search.samples import refuse_little_text, request_of

    *_, last = stages = run.by_stage()
    for number, stage in enumerate(stages):
        if stage.searches_rope:
            try:
                refuse_little_text(request_of(stage), tokenizer)
            except UserError as error:
                raise error if stage is last else UserError(run.told_of_stage(number, error)) from error


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
