"""Parameters of the measured advice: extend the context, or cut documents into chunks?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from data_schemas.closed import Params
from data_schemas.reorder_strategy import ReorderStrategy
from data_schemas.serving_advice import AdviceArm, Way


class PriceParams(Params):
    """What answering and training cost. Nothing is guessed: without a price there is no cost in money."""

    prompt_per_million: float | None = Field(None, ge=0, description="Price of a million prompt tokens. Empty: no prices.")
    answer_per_million: float | None = Field(None, ge=0, description="Price of a million generated tokens. Empty: no prices.")
    training_per_hour: float | None = Field(
        None,
        ge=0,
        description="Price of an hour of training on all its workers together. Empty: the fine-tuned model gets no price.",
    )
    training_hours: float | None = Field(
        None,
        ge=0,
        description="Hours that training took. Empty: as the checkpoint's log of steps says. Needed with training.stages, as the log is "
        "of one stage.",
    )
    amortised_over: int | None = Field(None, ge=1, description="Questions that share the cost of training.")
    currency: str = Field("", max_length=12, description="Name of the currency, such as EUR, for tables.")

    @model_validator(mode="after")
    def _fits_together(self) -> PriceParams:
        if (self.prompt_per_million is None) != (self.answer_per_million is None):
            raise ValueError("prompt_per_million and answer_per_million belong together: give both, or neither")
        if (self.training_per_hour is None) != (self.amortised_over is None):
            raise ValueError("training_per_hour and amortised_over belong together: give both, or neither")
        if self.training_hours is not None and self.training_per_hour is None:
            raise ValueError("training_hours needs training_per_hour and amortised_over: give them too, or remove it")
        if self.training_per_hour is not None and not self.are_given:
            raise ValueError("training_per_hour needs prompt_per_million and answer_per_million: give them too, or remove it")
        return self

    @property
    def are_given(self) -> bool:
        return self.prompt_per_million is not None


class AdviseParams(Params):
    """The advice for serving: the same questions asked in several ways of getting text into the prompt."""

    after_evaluation: bool = Field(
        False,
        description="Measure the advice after the evaluation of every run, so that the release contains `serving_advice.json`.",
    )
    ways: tuple[Way, ...] = Field(
        ("full", "chunks", "map_reduce", "refine", "route"),
        min_length=1,
        description="Compared ways. full: the whole document. chunks: retrieved passages. map_reduce and refine: summaries of parts. "
        "route: retrieved passages first, and the whole document where that answer is unlikely.",
    )
    arms: tuple[AdviceArm, ...] = Field(
        ("base", "scaling_only", "fine_tuned"),
        min_length=1,
        description="Models that answer. With fine_tuned, training runs first where it is missing.",
    )
    qa_file: str | None = Field(
        None,
        description="JSON Lines file of questions, each with `question`, `answers`, `gold`, and `document` or `document_id` if the gold is "
        "not in exactly one held-out document. Empty: `evaluation.qa_file`, else questions are made from held-out documents.",
    )
    questions_per_kind: int = Field(24, ge=2, le=10_000, description="Questions of each kind, made from held-out documents.")
    max_document_tokens: int | None = Field(
        None,
        ge=64,
        description="Longest text that a question is asked about. Empty: what fits model.target_length with question and answer.",
    )
    chunk_tokens: tuple[Annotated[int, Field(ge=16)], ...] | None = Field(
        None,
        min_length=1,
        description="Compared sizes of passages in tokens. Empty: an eighth and a third of `passage_tokens`.",
    )
    overlaps: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (0.0, 0.15), min_length=1, description="Compared shares of a passage that the next one repeats."
    )
    passage_tokens: int | None = Field(
        None, ge=16, description="Tokens of all passages in a prompt at most. Empty: half of the base's window."
    )
    orders: tuple[ReorderStrategy, ...] = Field(
        ("important_first_last", "reverse_rank", "none"),
        min_length=1,
        description="Compared orders of the passages in the prompt. Orders that are equal for the number of passages are asked once.",
    )
    embedding_model: str | None = Field(
        None,
        min_length=1,
        description="Folder of an encoder with .safetensors weights that finds passages, beside BM25. Empty: BM25 alone.",
    )
    note_tokens: int = Field(
        48, ge=8, le=4096, description="Longest note on a part of the document, for map_reduce and refine, in tokens."
    )
    answer_tokens: int = Field(24, ge=1, le=4096, description="Longest answer in tokens.")
    controls: bool = Field(
        True, description="Ask each question also about its document without the evidence, to see what is guessed."
    )
    prices: PriceParams = Field(PriceParams(), description="Prices of tokens and of training. Empty: no cost in money.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of intervals and tests.")
    seed: int = Field(0, ge=0, description="Seed of the questions, the split for `route`, and the tests.")

    @model_validator(mode="after")
    def _fits_together(self) -> AdviseParams:
        if self.ways == ("route",) or ("route" in self.ways and not {"full", "chunks"} <= {*self.ways}):
            raise ValueError("ways has route, which asks chunks first and full where it is unsure: add both, or remove route")
        if self.passage_tokens and self.chunk_tokens and min(self.chunk_tokens) > self.passage_tokens and "chunks" in self.ways:
            raise ValueError(
                f"chunk_tokens has no size within passage_tokens {self.passage_tokens}: give a smaller size, or raise passage_tokens"
            )
        return self
