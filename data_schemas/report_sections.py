"""The rows and sections of an evaluation's `report.json`; `data_schemas.report` says what holds for all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_schemas.record import Record
from data_schemas.reorder import RecallPoint, ReorderDecision

PUBLISHED_ARM = "fine_tuned"

Bound = float | None
Interval = Literal["wilson", "wilson_effective", "wilson_of_samples", "bootstrap"]  # the last two: in older files alone


class ModelAtLength(Record):
    """A model at a context length."""

    arm: str
    length: int


class PerplexityRow(Record):
    """Perplexity of the target tokens of `num_documents` documents."""

    arm: str
    length: int
    num_documents: int
    num_tokens: int
    perplexity: float
    low: Bound
    high: Bound


class ComparisonRow(Record):
    """Ratio of two perplexities, paired by document."""

    name: str
    numerator: ModelAtLength
    denominator: ModelAtLength
    ratio: float
    low: Bound
    high: Bound
    num_documents: int


class RatioByLength(Record):
    """Perplexity of `arm` over that of `reference`, both at `length`, paired by document."""

    arm: str
    reference: str
    length: int
    ratio: float
    low: Bound
    high: Bound
    num_documents: int


class PositionRow(Record):
    """Perplexity of the tokens at positions start..end-1 of windows of `length` tokens."""

    arm: str
    length: int
    start: int
    end: int
    num_documents: int
    num_tokens: int
    perplexity: float
    low: Bound
    high: Bound


class ProtocolRow(Record):
    """Perplexity as the paper in `label` measured it."""

    arm: str
    protocol: str
    label: str
    length: int
    num_documents: int
    num_windows: int
    num_tokens: int
    perplexity: float
    low: Bound
    high: Bound


class LongPplRow(Record):
    """Perplexity of the key tokens alone, at a length above the short context."""

    arm: str
    length: int
    longppl: float
    low: Bound
    high: Bound


class LongPpl(Record):
    """`evaluator` chose the key tokens by their gain from `short` to `long` tokens of context; `reason`: why there are no cells.

    `others`: the same by the key tokens that further evaluators chose.
    """

    evaluator: str | None
    long: int | None
    short: int | None
    num_key_tokens: int
    num_documents: int
    reason: str | None
    cells: tuple[LongPplRow, ...]
    others: tuple[LongPpl, ...] = ()


class TaskRow(Record):
    """Score at one depth; null depth: the gold is spread over the prompt. `n` counts prompts."""

    arm: str
    task: str
    length: int
    depth: float | None
    n: int
    accuracy: float
    low: Bound
    high: Bound
    interval: Interval
    gain: float | None
    gain_low: Bound
    gain_high: Bound


class TaskMeanRow(Record):
    """Score over all depths; the interval is over samples, and `n` counts prompts."""

    arm: str
    task: str
    length: int
    num_samples: int
    n: int
    accuracy: float
    low: Bound
    high: Bound
    interval: Interval
    gain: float | None
    gain_low: Bound
    gain_high: Bound


class SpacingRow(Record):
    """Score where the answer needs `num_evidence` facts; `distance` from the first to the last: 0 together, 1 at both ends.

    A null distance: the task does not control it, or there is one fact. `n` counts prompts.
    """

    arm: str
    task: str
    length: int
    num_evidence: int
    distance: float | None
    num_samples: int
    n: int
    accuracy: float
    low: Bound
    high: Bound
    interval: Interval
    gain: float | None
    gain_low: Bound
    gain_high: Bound


class RecallRow(Record):
    """A row of `tasks` of the served model, whose accuracy is called recall."""

    arm: str
    task: str
    length: int
    depth: float
    n: int
    recall: float
    low: float
    high: float
    interval: Interval
    gain: float | None
    gain_low: Bound
    gain_high: Bound

    def point(self) -> RecallPoint:
        """The same for a `chunk_reorder.json`."""
        return RecallPoint(**self.model_dump(include=set(RecallPoint.model_fields)))


class EffectiveLength(Record):
    """Tokens, by the point estimate and by the unfavourable and the favourable bound; null: the shortest judged length fails."""

    value: int | None
    lower: int | None
    upper: int | None
    longest_measured: int


class PerplexityLengths(Record):
    """Effective lengths by a threshold on perplexity."""

    criterion: str
    arms: dict[str, EffectiveLength]


class BaseReference(Record):
    """The base's score or gain at its window."""

    value: float
    low: Bound
    high: Bound


class TaskLengths(Record):
    """Effective lengths by one task, or by the mean over tasks; `reason`: why there are none, or why gain replaces score."""

    task: str
    measure: Literal["score", "gain"] | None
    reference: BaseReference | None
    arms: dict[str, EffectiveLength]
    reason: str | None


class TaskScoreLengths(Record):
    """Effective lengths by a share of the base's score."""

    criterion: str
    share: float
    tasks: tuple[TaskLengths, ...]


class RulerLengths(Record):
    """Effective lengths by RULER's fixed threshold."""

    criterion: str
    tasks: tuple[str, ...]
    arms: dict[str, EffectiveLength]
    reason: str | None


class EffectiveContextLengths(Record):
    """Effective context length in four senses; `arms` holds the lower bounds of `within_margin`."""

    criterion: str
    margin: float
    arms: dict[str, int | None]
    within_margin: PerplexityLengths
    perplexity: PerplexityLengths
    task_scores: TaskScoreLengths
    ruler: RulerLengths


class PositionIndex(Record):
    """Mean at both end depths minus mean at the depths between."""

    index: float
    low: Bound
    high: Bound
    p_value: float
    first_minus_middle: float
    last_minus_middle: float
    p_holm: float


class MiddleRow(Record):
    """Whether a model recalls the ends better than the middle, by score and by recall gain."""

    arm: str
    task: str
    length: int
    num_samples: int
    depths: tuple[float, ...]
    score: PositionIndex
    gain: PositionIndex | None


class OrderMean(Record):
    """Mean of the decision's measure under one order of passages, with its interval over questions; null length: all lengths."""

    strategy: str
    length: int | None
    mean: float
    low: Bound
    high: Bound


class ReorderSection(Record):
    """The comparison of passage orders; `reason` says why there is none, `calibrated` why that order was not compared."""

    reason: str | None
    arm: str | None
    num_questions: int
    num_passages: dict[str, tuple[int, int]] = Field(description="By length: the fewest and the most passages of a question.")
    calibrated: str
    decision: ReorderDecision | None
    means: tuple[OrderMean, ...] = ()


def published_curve(rows: tuple[RecallRow, ...]) -> tuple[RecallPoint, ...]:
    """The recall curve of the published model; empty where another model's was measured."""
    return tuple(row.point() for row in rows if row.arm == PUBLISHED_ARM)
