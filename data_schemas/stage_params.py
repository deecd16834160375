"""One stage of progressive training: what differs from `model`, `training` and `retrieval`, and the order of stages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import Field

from data_schemas.closed import Params
from data_schemas.model_params import ModelParams, RopeMethod
from data_schemas.retrieval_params import RetrievalFamily

_ROPE = ("rope_method", "rope_theta", "rope_length", "rope_factors_file")
_OF_TRAINING = ("steps", "rows_per_step", "learning_rate", "warmup_steps")
_OF_RETRIEVAL = {
    "retrieval_share": "share",
    "retrieval_families": "families",
    "answer_weight": "answer_weight",
}  # its names there


class StageParams(Params):
    """A stage of training at one length. It goes on from the weights that the stage before it trained."""

    ADDED: ClassVar[frozenset[str]] = frozenset({*_OF_TRAINING, *_ROPE, *_OF_RETRIEVAL})

    target_length: int = Field(
        ge=32,
        le=16_777_216,
        description="Context length of this stage, in tokens. No stage is shorter than the one before, and the last one has "
        "`model.target_length`.",
    )
    steps: int | None = Field(None, ge=1, description="Number of optimizer steps of this stage. Empty: `training.steps`.")
    rows_per_step: int | None = Field(
        None, ge=1, description="Rows in one optimizer step of this stage. Empty: `training.rows_per_step`."
    )
    learning_rate: float | None = Field(
        None, gt=0, le=1, description="Peak learning rate of this stage's LoRA weights. Empty: `training.learning_rate`."
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="Steps of linear warm-up of this stage. Empty: `training.warmup_steps`."
    )
    rope_method: RopeMethod | None = Field(
        None,
        description="How RoPE is scaled in this stage. With longrope and no file, factors are searched on the model of the stage before, "
        "anew for each stage. "
        "A stage that names a method takes nothing else from `model`'s RoPE. Not for the last stage. Empty: longrope with "
        "`rope_factors_file`, else `model.rope_method`.",
    )
    rope_theta: float | None = Field(
        None, gt=1, le=1e15, description="For theta in this stage: the base frequency of RoPE. Empty: `model.rope_theta`."
    )
    rope_length: int | None = Field(
        None,
        ge=32,
        le=16_777_216,
        description="Context length that RoPE is scaled for in this stage. Empty: as many times this stage's target_length as "
        "`model.rope_length` is of `model.target_length`.",
    )
    rope_factors_file: str | None = Field(
        None,
        description="For longrope in this stage: JSON file with its factors. Factors are for one length, so those of `model` are for "
        "stages of `model.target_length` only.",
    )

    retrieval_share: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="Share of this stage's packed tokens that are retrieval documents. Empty: `retrieval.share`.",
    )
    retrieval_families: tuple[RetrievalFamily, ...] | None = Field(
        None, min_length=1, description="Kinds of retrieval documents in this stage. Empty: `retrieval.families`."
    )
    answer_weight: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of a retrieval document's loss that is on its answers in this stage. Empty: `retrieval.answer_weight`.",
    )

    def changes_of_model(self, model: ModelParams) -> dict[str, Any]:
        """What this stage, which is not the last one, changes in `model`. One of the target length keeps the RoPE unless it states its
        own; what `model` has for arms of the evaluation alone is for the last stage."""
        own = {name: getattr(self, name) for name in _ROPE}
        if self.target_length == model.target_length and not any(own.values()):
            used = {"rope_theta": ("theta", "auto"), "rope_factors_file": ("longrope", "auto")}
            return {name: None for name, methods in used.items() if model.rope_method not in methods}
        if self.rope_method is None and self.rope_factors_file:
            own["rope_method"] = "longrope"  # also where a search for the last stage has put another method into `model`
        elif self.rope_method is None:
            own["rope_method"] = model.rope_method
            if self.rope_theta is None and model.rope_method in ("theta", "auto"):  # else it is for an arm of the evaluation
                own["rope_theta"] = model.rope_theta
            if self.rope_length is None and model.rope_length is not None:
                own["rope_length"] = round(self.target_length * model.rope_length / model.target_length)
        return {"target_length": self.target_length} | own

    def changes_of_training(self) -> dict[str, Any]:
        """What this stage changes in `training`."""
        given = {name: getattr(self, name) for name in _OF_TRAINING}
        return {"stages": ()} | {name: value for name, value in given.items() if value is not None}

    def changes_of_retrieval(self) -> dict[str, Any]:
        """What this stage changes in `retrieval`."""
        given = {theirs: getattr(self, name) for name, theirs in _OF_RETRIEVAL.items()}
        return {name: value for name, value in given.items() if value is not None}

    def in_own_names(self, sentence: str, number: int, *, is_last: bool) -> str:
        """`sentence` about this stage's run: fields that the stage states have its name, not that of the group they replace.

        The last stage has the length and RoPE of `model`.
        """
        replaced = {f"training.{name}": name for name in _OF_TRAINING}
        replaced |= {f"retrieval.{theirs}": name for name, theirs in _OF_RETRIEVAL.items()}
        replaced |= {} if is_last else {f"model.{name}": name for name in ("target_length", *_ROPE)}
        for theirs, name in replaced.items():
            if getattr(self, name) is not None:
                sentence = re.sub(rf"\b{re.escape(theirs)}\b", f"training.stages[{number}].{name}", sentence)
        return sentence

    def recorded(self, *, exclude: set[str] | None = None) -> dict[str, Any]:
        """See `Params.recorded`. Without the factors' file: its content is in the digest of what is trained with it."""
        return super().recorded(exclude=(exclude or set()) | {"rope_factors_file"})


def refuse_unordered(stages: Sequence[StageParams], target_length: int) -> None:
    """ValueError for lengths that shrink, that do not end at `target_length`, and for a last stage with a RoPE of its own."""
    for number, (before, stage) in enumerate(pairwise(stages), 1):
        if stage.target_length < before.target_length:
            raise ValueError(
                f"training.stages[{number}].target_length is {stage.target_length}, below the {before.target_length} of the stage "
                "before: let no stage be shorter"
            )
    if not stages:
        return
    last, number = stages[-1], len(stages) - 1
    if last.target_length != target_length:
        raise ValueError(
            f"training.stages end at {last.target_length} tokens, but model.target_length is {target_length}: let the last stage have "
            "that length"
        )
    if given := [name for name in _ROPE if getattr(last, name) is not None]:
        raise ValueError(
            f"training.stages[{number}] is the last stage, which is trained with the RoPE of the release: give model.{given[0]} instead"
        )
