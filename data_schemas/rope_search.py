"""What a search for RoPE factors writes: `rope_search.json` and the lines of `evaluations.jsonl`.

Scores are in nats a token, lower is better: of needle answers, of text, and their weighted sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from data_schemas.record import Record, read_record
from data_schemas.rope_search_params import RopeSearchParams

FACTORS_NAME = "factors.json"
RESULT_NAME = "rope_search.json"
LOG_NAME = "evaluations.jsonl"


class Evaluation(Record):
    """One candidate on some samples: a line of the log. `key`: digest of the rotation and of the samples' tokens."""

    key: str
    purpose: str = Field(description="Why it was measured: critical pair, a generation, its finalists, or the decision.")
    factors: tuple[float, ...]
    attention_factor: float
    samples: tuple[str, ...] = Field(description="Digests of the samples.")
    answers: tuple[float, ...]
    text: tuple[float, ...]
    seconds: float = Field(description="Time of all these samples on one worker.")


class DecidedForm(Record):
    """One form on the deciding samples. `difference`: the found factors' score minus this one's, null for themselves."""

    name: str
    answers: float
    text: float
    score: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class RopeSearchResult(Record):
    """The whole file; lengths in tokens."""

    settings: RopeSearchParams
    original_length: int
    target_length: int
    theoretical_critical_pair: int
    critical_pair: int = Field(description="Where NTK scores best: LongRoPE2's real critical dimension, as a pair of channels.")
    critical_scores: dict[int, float] = Field(description="Mean score of NTK at each pair that was tried, on the first samples.")
    critical_theta: float = Field(description="rope_theta of NTK at that pair.")
    factors: tuple[float, ...] = Field(description="The best factors found, one a pair.")
    attention_factor: float
    num_evaluations: int
    num_passes: int = Field(description="Forward passes, those of the decision included.")
    best_by_generation: tuple[float, ...]
    forms: tuple[DecidedForm, ...] = Field(description="All forms on the deciding samples, best first.")
    level_of_each_comparison: float
    chosen: Literal["longrope", "yarn", "ntk", "ntk_critical"] = Field(description="What the plan takes.")
    verdict: str = Field(description="The decision, in a sentence.")

    @property
    def is_better(self) -> bool:
        """Whether the found factors are used."""
        return self.chosen == "longrope"


def read_rope_search(path: Path) -> RopeSearchResult:
    """From a `rope_search.json`. UserError where it is missing or not such a file."""
    return read_record(path, RopeSearchResult, "a search for RoPE factors", "delete its folder and run search-rope again")
