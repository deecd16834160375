"""Parameters of the retrieval mix: documents made from the training text whose answers stand far back in the same document."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from data_schemas.closed import Params

RetrievalFamily = Literal[
    "key_value", "keyword", "position", "fill_in", "repeated_opening", "paragraph_order", "shuffled_chunks", "hard_negatives",
    "key_value_rounds", "scattered_facts",
]  # fmt: skip
FAMILIES: tuple[RetrievalFamily, ...] = get_args(RetrievalFamily)


class RetrievalParams(Params):
    """Training documents that need evidence from anywhere in the window, made from the training documents without a model."""

    share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of the packed training tokens that are retrieval documents. 0: none. At most half, so that no text is needed "
        "twice.",
    )
    families: tuple[RetrievalFamily, ...] = Field(
        FAMILIES, min_length=1, description="Kinds of retrieval documents to make, each about equally often."
    )
    heldout_families: tuple[RetrievalFamily, ...] = Field(
        (), description="Kinds left out of `families`, to see what training on the others does for them."
    )
    answer_weight: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of a retrieval document's loss that is on its answers, as far as no token of an answer weighs more than 16. "
        "1: the answers alone.",
    )
    questions: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Number of questions at the end of a retrieval document, where its length allows. Empty: 16 for rows of up to 2,048 "
        "tokens, and one more for every 128 tokens beyond, at most 256.",
    )
    chat_template: bool = Field(
        True, description="Ask and answer in turns of the tokenizer's chat template, if it has one. false: as plain text."
    )
    seed: int = Field(0, ge=0, description="Seed of everything drawn for retrieval documents.")

    @model_validator(mode="after")
    def _has_families(self) -> RetrievalParams:
        self.refuse_no_families("")
        return self

    def refuse_no_families(self, group: str = "retrieval.") -> None:
        """ValueError if no kind is left to make, or one is named twice. `group`: what stands before the names of parameters."""
        if len(set(self.families)) < len(self.families):
            raise ValueError(f"{group}families names a kind twice: name each once")
        if not self.trained_families:
            raise ValueError(
                f"{group}heldout_families holds every kind of {group}families, so none is left to train: remove one"
            )

    def questions_of(self, row_tokens: int) -> int:
        """How many questions a document of so many tokens has where its length allows."""
        return self.questions or min(16 + max(0, row_tokens - 2048) // 128, 256)

    @property
    def trained_families(self) -> tuple[RetrievalFamily, ...]:
        """The kinds that are made."""
        return tuple(family for family in self.families if family not in self.heldout_families)
