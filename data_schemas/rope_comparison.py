"""`rope_comparison.json`: the same base under each RoPE method, without training.

`at_window` is perplexity at the base's window over the unscaled base's there, the cost for short prompts; `against_best` is
perplexity at the target over the best method's. Both are paired by document. The best is compared with every other method, so
each of those intervals is at level 1 - (1 - confidence) / comparisons (Bonferroni), and together they hold at `confidence`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from data_schemas.record import Record, read_record
from data_schemas.report_sections import Bound, PerplexityRow


class RopeComparisonSettings(Record):
    """How the methods were measured; lengths in tokens."""

    base_window: int
    target_length: int
    lengths: tuple[int, ...]
    target_tokens: int
    confidence: float
    seed: int
    level_of_each_comparison: float | None = Field(default=None, description="Level of the intervals of `against_best`.")


class PerplexityRatio(Record):
    """One perplexity over another; bounds are null for a single document."""

    ratio: float
    low: Bound
    high: Bound


class ContextGain(Record):
    """The unscaled base's perplexity at `to_length` over that at `from_length`."""

    from_length: int
    to_length: int
    ratio: float
    low: Bound
    high: Bound


class ComparedMethod(Record):
    """One method, or "base" for the model without scaling; `cells` by context length, ascending."""

    method: str
    cells: tuple[PerplexityRow, ...]
    at_window: PerplexityRatio
    against_best: PerplexityRatio
    verdict: Literal["best", "better", "worse", "not told apart"]
    plan: dict[str, str]


class RopeComparison(Record):
    """The whole file; `methods` has the lowest perplexity at the target first."""

    settings: RopeComparisonSettings
    num_documents: int
    methods: tuple[ComparedMethod, ...]
    refused: dict[str, str] = Field(description="Methods that do not apply to this base, with the reason.")
    best: str
    equally_good: tuple[str, ...] = Field(description="Methods that are not told apart from the best.")
    context_gain: ContextGain | None
    findings: tuple[str, ...] = Field(description="The conclusions, a sentence each.")


def read_rope_comparison(path: Path) -> RopeComparison:
    """From a `rope_comparison.json`. UserError where it is missing or not such a file."""
    return read_record(path, RopeComparison, "a comparison of RoPE methods", "delete its folder and run compare-rope again")
