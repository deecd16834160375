"""`chunk_reorder.json`: where in its prompt a retrieved passage should stand.

A *permutation* lists ranks (1 is the best passage) in prompt order: `[1, 3, 5, 4, 2]` puts the best passage first and
the second best last. For n passages, in any language:

    none                  1 2 3 ... n
    reverse_rank          n ... 3 2 1
    important_first_last  1 3 5 ... ... 6 4 2: odd ranks upwards, then even ranks downwards, for even and odd n alike
    calibrated            rank r stands at the place with the r-th best recall

For `calibrated`, place i of n (from 0) lies at depth i / (n - 1), or 0 for n = 1. Its recall is linear between the measured
depths and constant beyond them; between two measured context lengths it is linear in tokens, and a prompt of unknown size
counts as one of the longest length. Recalls are rounded to 9 digits; of equal places the one that `important_first_last` would
fill with the better rank comes first. Where a length has not one value at each of two or more depths, or one constant recall
lies within the intervals of all depths, `important_first_last` takes its place.

The golden permutations let an implementation check itself (those of `calibrated` are for a prompt of unknown size), and
`chunk_reorder.schema.json` beside this module, which is generated from it, describes the file.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_schemas.record import Record
from data_schemas.reorder_strategy import ReorderStrategy

REORDER_FILE_NAME = "chunk_reorder.json"
SCHEMA_FILE_NAME = "chunk_reorder.schema.json"
GOLDEN_SIZES = tuple(range(1, 11))

SimpleStrategy = Literal["important_first_last", "reverse_rank", "none"]
Permutation = tuple[Annotated[int, Field(ge=1)], ...]


class ChunkingAdvice(Record):
    """How to cut documents into passages."""

    strategy: Literal["fixed", "overlap", "semantic"]
    max_tokens: int = Field(ge=1, description="Budget of a passage, in tokens of the release's tokenizer.")
    overlap_fraction: float = Field(ge=0, lt=1, description="Share of a passage repeated in the next; 0 for none.")


class StrategyResult(Record):
    """One order of passages against another, on the same samples: paired, at one length or over all of them."""

    strategy: Literal["important_first_last", "reverse_rank", "calibrated", "none", "random"]
    against: Literal["none", "random"]
    length: int | None = Field(description="Context length in tokens; null: the mean over all of a sample's lengths.")
    num_samples: int = Field(ge=1, description="Independent samples, each with all its prompts.")
    mean: float = Field(description="Mean of the measure: score, or log-probability of the answer in nats.")
    difference: float = Field(description="Mean over samples of this order's measure minus that of `against`.")
    low: float | None = Field(
        description="Bounds of `difference` over samples: Tango's for scores, Student's t for log-probabilities; null: one sample."
    )
    high: float | None
    test: Literal["mcnemar", "sign_flip", "reference"]
    p_value: float = Field(ge=0, le=1)
    p_holm: float = Field(ge=0, le=1, description="By Holm over the strategies, for single lengths over these too.")


class ReorderDecision(Record):
    """Which strategy the extended model was measured to answer best with, in multi-document retrieval."""

    strategy: ReorderStrategy
    is_distinguishable: bool = Field(description="False: no order won, and `strategy` is what is used then.")
    measure: Literal["score", "logprob"]
    confidence: float = Field(gt=0, lt=1)
    reason: str = Field(description="The decision in one sentence.")
    table: tuple[StrategyResult, ...] = ()


class RecallPoint(Record):
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


class ReorderConfig(Record):
    """The whole file."""

    schema_version: Literal[1] = 1
    strategy: ReorderStrategy
    tie_rule: Literal["stable"] = Field(default="stable", description="Passages of equal score keep their given order.")
    context_length: int = Field(ge=1, description="Tokens the model was published for.")
    chunking: ChunkingAdvice = Field(
        description="How to cut the passages that are retrieved: as a `serving_advice.json` beside this file advises, else by rule."
    )
    summarisation: ChunkingAdvice | None = Field(
        None, description="How to cut a document beyond the context length that is summarised piece by piece."
    )
    validated: ReorderDecision | None = Field(
        None,
        description="What the choice of `strategy` rests on; null: on a `serving_advice.json`, if `note` says so, else on no measurement.",
    )
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


def schema_json() -> str:
    """The text of `chunk_reorder.schema.json` (JSON Schema, draft 2020-12)."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | ReorderConfig.model_json_schema()
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
