"""The parts of an evaluation's report that judge: paired tests, non-inferiority, and what either could show at best."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_schemas.record import Record
from data_schemas.report_sections import Bound

# too_few_samples: even equal scores of this many samples leave the margin open
Verdict = Literal["non_inferior", "inferior", "not_shown", "too_few_samples", "not_measurable"]
# too_few_samples: no outcome of this many samples shows a difference
DifferenceVerdict = Literal["first_better", "second_better", "not_shown", "too_few_samples"]


class PairedTest(Record):
    """Whether one model scores higher than another on the same samples; the difference is first minus second.

    `low` and `high` are at the report's level and exclude zero exactly where `p_value` is below 1 - confidence. `low_holm` and
    `high_holm` do so for `p_holm`, at the level that Holm's correction gives this test.
    """

    task: str
    length: int
    num_samples: int
    num_prompts: int
    difference: float
    low: Bound
    high: Bound
    samples_first_better: int
    samples_second_better: int
    prompts_first_better: int
    prompts_second_better: int
    p_value: float
    p_value_prompts: float = Field(description="Over single prompts, as if a sample's depths were independent; not corrected.")
    p_holm: float
    low_holm: Bound = None
    high_holm: Bound = None
    smallest_p_holm: float | None = Field(default=None, description="If every sample favoured the same model.")
    verdict: DifferenceVerdict | None = Field(default=None, description="By p_holm; null in files of older versions.")


class PairedTestFamily(Record):
    """The tests of two models that Holm's correction takes together.

    `primary`: declared before measuring, fine-tuned against scaling only at the longest length and against the base at its own
    window. The others are secondary and have a family of their own.
    """

    first: str
    second: str
    method: str
    role: Literal["primary", "secondary"] | None = Field(
        default=None, description="Null in files of older versions: all tests."
    )
    tests: tuple[PairedTest, ...]


class PerplexityVerdict(Record):
    """Perplexity over the base's, both at the base's window."""

    arm: str
    ratio: float
    low: Bound
    high: Bound
    verdict: Verdict


class TaskVerdict(Record):
    """Score minus the base's, both at the base's window."""

    arm: str
    task: str
    base_score: float
    difference: float
    low: Bound
    high: Bound
    num_samples: int
    verdict: Verdict
    best_low: Bound = Field(
        default=None, description="The lower bound if no sample differed: the margin is passed above its negative."
    )


class NonInferiority(Record):
    """Whether short context lost less than the declared margin."""

    margin: float
    base_window: int
    perplexity: tuple[PerplexityVerdict, ...]
    tasks: tuple[TaskVerdict, ...]


class PlannedComparison(Record):
    """What a comparison could show at best, known before anything is measured; shares lie in [0, 1]."""

    name: str
    family_size: int = Field(description="Tests that Holm's correction takes together.")
    num_samples: int
    smallest_p: float | None = Field(
        description="After Holm's correction, if every sample favoured the same model; null: no test."
    )
    best_low: Bound = Field(
        default=None, description="Lower bound of a difference if no sample differed; null: not against a margin."
    )
    can_show: bool = Field(description="Whether any outcome reaches the level, or equal scores pass the margin.")
    fewest_samples: int | None = Field(
        description="From this many samples on some outcome can; null: the family has too many tests."
    )
    samples_for_effect: int | None = Field(description="That find `detectable_effect` with 80 % power; null: not a test.")
    detectable: float | None = Field(description="The smallest difference found with 80 % power; null: none, or not a test.")


class Power(Record):
    """The planned comparisons of task scores and orders of passages, and what the sample sizes assume.

    A sample's prompts are assumed to agree with `correlation`, and `discordant` of the prompts to be answered better by either model.
    """

    detectable_effect: float
    correlation: float
    discordant: float
    comparisons: tuple[PlannedComparison, ...]
