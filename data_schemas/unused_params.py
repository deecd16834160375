"""Parameters that are set and that a run does not use. They are said and not refused, since several runs may share a config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from data_schemas.closed import Params
from data_schemas.params import PipelineParams
from data_schemas.rope_search_params import OF_SHORT_FACTORS


class Unused(NamedTuple):
    """`names` are full names of parameters, or kinds that one of them lists."""

    names: tuple[str, ...]
    reason: str


def unused(params: PipelineParams) -> Iterator[Unused]:
    """What has another value than its default and is not used, by reason."""
    found = (_unused_retrieval, _unused_training, _unused_packing, _unused_search)
    return (one for part in found for one in part(params) if one.names)


def unused_lines(params: PipelineParams) -> tuple[str, ...]:
    """`unused` as a line each, for people."""
    return tuple(f"not used: {', '.join(one.names)}, because {one.reason}" for one in unused(params))


def _unused_retrieval(params: PipelineParams) -> Iterator[Unused]:
    retrieval, stages = params.retrieval, params.training.stages
    mixes = [run.retrieval for run in params.by_stage()]
    for number, (stage, mix) in enumerate(zip(stages, mixes, strict=False)):
        if not mix.share:
            names = _set(f"training.stages[{number}]", stage, ("retrieval_families", "answer_weight"))
            yield Unused(names, "the share of retrieval documents is 0 in this stage")
    if not any(mix.share for mix in mixes):
        why = "no training stage has retrieval documents" if stages else "retrieval.share is 0"
        yield Unused(_set("retrieval", retrieval), why)
        return
    used = [stage.changes_of_retrieval() for stage, mix in zip(stages, mixes, strict=False) if mix.share]
    hidden = tuple(name for name in ("families", "answer_weight") if used and all(name in changed for changed in used))
    if stages and all(stage.retrieval_share is not None for stage in stages):
        yield Unused(_set("retrieval", retrieval, ("share",)), "each training stage states its own")
    yield Unused(_set("retrieval", retrieval, hidden), "each training stage with retrieval documents states its own")
    trained = {kind for mix in mixes if mix.share for kind in mix.families}
    if outside := [kind for kind in retrieval.heldout_families if kind not in trained]:
        are = "it is" if len(outside) == 1 else "they are"
        of = "in the families of any training stage" if stages else "in retrieval.families"
        yield Unused((f"{', '.join(outside)} of retrieval.heldout_families",), f"{are} not {of}")


def _unused_training(params: PipelineParams) -> Iterator[Unused]:
    training = params.training
    changed = [stage.changes_of_training() for stage in training.stages]
    hidden = tuple(
        name for name in ("steps", "rows_per_step", "learning_rate", "warmup_steps") if all(name in one for one in changed)
    )
    if changed:
        yield Unused(_set("training", training, hidden), "each training stage states its own")
    if training.loss_weighting == "none":
        weights = ("loss_long_from", "loss_extra_mass", "loss_max_weight")
        yield Unused(_set("training", training, weights), "training.loss_weighting is none")
    if training.loss_weighting == "long_ce":
        why = "it is for training.loss_weighting exact, and that is long_ce"
        yield Unused(_set("training", training, ("loss_extra_mass",)), why)
    if training.attention == "full":
        yield Unused(_set("training", training, ("s2_group_size",)), "training.attention is full")


def _unused_packing(params: PipelineParams) -> Iterator[Unused]:
    if not params.corpus.has_instructions:
        of_conversations = ("long_conversations", "full_attention_conversations")
        why = "no source of the corpus is instruction data"
        yield Unused(_set("packing", params.packing, of_conversations), why)
    elif params.training.attention == "full":
        yield Unused(_set("packing", params.packing, ("full_attention_conversations",)), "training.attention is full")


def _unused_search(params: PipelineParams) -> Iterator[Unused]:
    search = params.rope_search
    if not any(stage.searches_rope for stage in params.by_stage()):
        used = OF_SHORT_FACTORS if params.training.find_short_factors else ()
        names = tuple(name for name in type(search).model_fields if name not in used)
        yield Unused(_set("rope_search", search, names), "this run searches no RoPE factors")
    elif search.space == "full":
        yield Unused(_set("rope_search", search, ("knots",)), "rope_search.space is full")


def _set(group: str, params: Params, names: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Full names of those `names` of a group that have another value than their default. None: of all."""
    fields = type(params).model_fields
    return tuple(
        f"{group}.{name}" for name in (fields if names is None else names) if getattr(params, name) != fields[name].default
    )
