"""`chunk_reorder.json`: where in its prompt a retrieved passage should stand.

A *permutation* lists ranks (1 is the best passage) in prompt order: `[1, 3, 5, 4, 2]` puts the best passage first and
the second best last. The golden permutations let an implementation in another language check itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_schemas.params import ReorderStrategy

REORDER_FILE_NAME = "chunk_reorder.json"
GOLDEN_SIZES = tuple(range(1, 11))

SimpleStrategy = Literal["important_first_last", "reverse_rank", "none"]
Permutation = tuple[Annotated[int, Field(ge=1)], ...]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChunkingAdvice(_Closed):
    """How to cut the passages that are retrieved."""

    strategy: Literal["fixed", "overlap", "semantic"]
    max_tokens: int = Field(ge=1, description="Budget of a passage, in tokens of the release's tokenizer.")
    overlap_fraction: float = Field(ge=0, lt=1, description="Share of a passage repeated in the next; 0 for none.")


class RecallPoint(_Closed):
    """Recall of a needle at one relative depth (0 is the prompt's start) of one context length."""

    length: int = Field(ge=1, description="Context length in tokens.")
    depth: float = Field(ge=0, le=1)
    n: int = Field(ge=1, description="Prompts measured.")
    recall: float = Field(ge=0, le=1)
    low: float
    high: float
    gain: float | None = Field(None, description="Log-probability of the answer with the needle minus without, in nats.")
    gain_low: float | None = None
    gain_high: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> RecallPoint:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class ReorderConfig(_Closed):
    """The whole file."""

    schema_version: Literal[1] = 1
    strategy: ReorderStrategy
    tie_rule: Literal["stable"] = Field(default="stable", description="Passages of equal score keep their given order.")
    context_length: int = Field(ge=1, description="Tokens the model was published for.")
    chunking: ChunkingAdvice
    recall_by_position: tuple[RecallPoint, ...] = ()
    golden: dict[str, Permutation] = Field(description="Number of passages, '1' to '10', to the permutation of `strategy`.")
    golden_by_strategy: dict[SimpleStrategy, dict[str, Permutation]] = Field(
        description="The same for each strategy that needs no measurement."
    )
    note: str = Field("", description="For people, such as why a calibrated order fell back.")

    @model_validator(mode="after")
    def _golden_are_permutations(self) -> ReorderConfig:
        for name, golden in ((self.strategy, self.golden), *self.golden_by_strategy.items()):
            if list(golden) != [str(n) for n in GOLDEN_SIZES]:
                raise ValueError(f"golden permutations of {name} must be keyed '1' to '10', in this order")
            for n, ranks in zip(GOLDEN_SIZES, golden.values(), strict=True):
                if sorted(ranks) != list(range(1, n + 1)):
                    raise ValueError(
                        f"golden permutation of {name} for {n} passages is {list(ranks)}, not a permutation of 1..{n}"
                    )
        return self
