"""`serving_advice.json`: which way of getting text into the prompt was measured to serve this corpus and this model best.

A *way* is one of `full` (the whole document), `chunks` (retrieved passages), `map_reduce` and `refine` (summaries of parts) or
`route` (the cheap way first, and the long one where the answer is unlikely), with its settings and the model arm that answers.
All ways answer the same questions, so differences are paired by question.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from data_schemas.record import Record, read_record
from data_schemas.reorder import ChunkingAdvice
from data_schemas.reorder_strategy import ReorderStrategy

ADVICE_FILE_NAME = "serving_advice.json"

Way = Literal["full", "chunks", "map_reduce", "refine", "route"]
AdviceArm = Literal["base", "scaling_only", "fine_tuned"]
QuestionKind = Literal["local", "far_apart", "spread", "given"]
Retriever = Literal["bm25", "embedding"]


class RetrievalSettings(Record):
    """How passages are cut, found and ordered."""

    chunking: ChunkingAdvice
    retriever: Retriever
    embedding_model: str | None = Field(None, description="Of `embedding`: name of the encoder's folder.")
    k: int = Field(ge=1, description="Passages in the prompt at most.")
    budget_tokens: int = Field(ge=1, description="Tokens of all passages in a prompt at most.")
    order: ReorderStrategy


class ServingWay(Record):
    """One way with all that is needed to serve it. `name` is unique in the file."""

    name: str
    way: Way
    arm: AdviceArm
    window: int = Field(ge=1, description="Longest prompt and answer, in tokens of the model.")
    retrieval: RetrievalSettings | None = Field(None, description="Of `chunks`, and of the cheap way of `route`.")
    part_tokens: int | None = Field(
        None, ge=1, description="Of `map_reduce` and `refine`: largest part of the document, in tokens."
    )
    note_tokens: int | None = Field(None, ge=1, description="Of `map_reduce` and `refine`: longest note on a part, in tokens.")
    answer_tokens: int | None = Field(
        None, ge=1, description="Longest answer, in tokens; of `route` that of its two ways. Null: nothing was asked."
    )
    cheap: str | None = Field(None, description="Of `route`: name of the way that is asked first.")
    long: str | None = Field(None, description="Of `route`: name of the way that is asked where the first is unsure.")
    threshold: float | None = Field(
        None,
        description="Of `route`: mean log-probability of the cheap answer's tokens in its first line, in nats, below which the long way is "
        "asked.",
    )


class WayResult(Record):
    """One way on one kind of question. Costs are means over its questions."""

    way: str = Field(description="Name of the way.")
    kind: QuestionKind
    num_questions: int = Field(ge=1)
    quality: float = Field(description="Mean score of the answers, 0 to 1.")
    low: float
    high: float
    logprob: float | None = Field(None, description="Mean log-probability of the right answer's tokens, in nats a token.")
    control_quality: float | None = Field(None, description="The same score where the evidence was taken out of the document.")
    prompt_tokens: float = Field(ge=0, description="Tokens read by the model for one question, over all its calls.")
    answer_tokens: float = Field(ge=0)
    seconds: float = Field(ge=0)
    price: float | None = Field(
        None, description="Money for 1,000 questions, training included; null: no price list was given."
    )


class WayComparison(Record):
    """One way against the best one on one kind of question, paired by question."""

    kind: QuestionKind
    way: str
    against: str
    difference: float = Field(description="Quality of `way` minus that of `against`.")
    low: float
    high: float
    p_holm: float = Field(ge=0, le=1)
    cost_ratio: float = Field(ge=0, description="Prompt tokens of `against` over those of `way`.")


class KindAdvice(Record):
    """What to do for one kind of question: `way` is the cheapest that was not shown to be worse than the best."""

    kind: QuestionKind
    way: str
    is_distinguishable: bool = Field(description="False: no way was shown to be better than the cheapest.")
    sentence: str = Field(description="For people: what to do and why, in one sentence.")


class ServingAdvice(Record):
    """The whole file."""

    schema_version: Literal[1] = 1
    corpus: str = Field(description="Digest of the documents artifact.")
    checkpoint: str | None = Field(None, description="Digest of the checkpoint; null: only untrained arms.")
    questions_from: Literal["qa_file", "documents"]
    confidence: float = Field(gt=0, lt=1)
    ways: tuple[ServingWay, ...]
    results: tuple[WayResult, ...]
    comparisons: tuple[WayComparison, ...]
    advice: tuple[KindAdvice, ...]
    overall: str = Field(description="For people: extend, chunk, or not distinguishable, over all kinds, in one sentence.")
    currency: str = ""
    note: str = Field("", description="For people: what could not be asked or measured, with counts.")

    def way(self, name: str) -> ServingWay:
        """The way of that name. Raises KeyError."""
        return {way.name: way for way in self.ways}[name]

    def for_kind(self, kind: QuestionKind) -> ServingWay | None:
        """The way advised for a kind of question; null if the kind was not measured."""
        return next((self.way(advice.way) for advice in self.advice if advice.kind == kind), None)


def read_advice(path: Path) -> ServingAdvice:
    """From a `serving_advice.json` or the folder of a release or an advice. Raises UserError."""
    file = path / ADVICE_FILE_NAME if path.is_dir() else path
    return read_record(file, ServingAdvice, "serving advice", "run `ropeway advise` on the config that made the release")
