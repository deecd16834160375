"""What a search for RoPE factors writes: `rope_search.json` and the lines of `evaluations.jsonl`.

Scores are in nats a token, lower is better: of needle answers, of text, and their weighted sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from data_schemas.record import Record, read_record
from data_schemas.rope_search_params import RopeSearchParams

# The found factors, and the closed forms they are compared with. ntk_critical is NTK at the measured critical pair; yarn_1.5 is YaRN scaled
# for 1.5 times the target.
Form = Literal["longrope", "ntk_critical", "yarn", "yarn_1.25", "yarn_1.5", "yarn_2", "ntk", "linear", "dynamic", "llama3"]

SEARCHES = "rope_searches"  # the kind of the artifact
LAST_SEARCH = (
    "rope_search"  # its name among a run's artifacts, for the last training stage; those of earlier stages add _1, _2, ...
)
FACTORS_NAME = "factors.json"
RESULT_NAME = "rope_search.json"
LOG_NAME = "evaluations.jsonl"


class Evaluation(Record):
    """One candidate on one sample: a line of the log. `key`: digest of the rotation, and of the sample's tokens."""

    key: str
    purpose: str = Field(description="Why it was measured: critical pair, a generation, its finalists, or the decision.")
    factors: tuple[float, ...]
    attention_factor: float
    sample: str = Field(description="Digest of the sample.")
    answers: float
    text: float
    seconds: float


class DecidedForm(Record):
    """One form on the deciding samples. `difference`: the found factors' score minus this one's, null for themselves.

    Forms that are far behind after the first samples are measured on those only.
    """

    name: Form
    answers: float
    text: float
    score: float
    num_samples: int = Field(0, description="Deciding samples that it was measured on. 0: not recorded.")
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class RopeSearchResult(Record):
    """The whole file; lengths in tokens."""

    settings: RopeSearchParams
    base: str = Field("", description="Fingerprint of the base that the factors were found for. Empty: not recorded.")
    original_length: int
    target_length: int
    theoretical_critical_pair: int
    critical_pair: int = Field(description="Where NTK scores best: LongRoPE2's real critical dimension, as a pair of channels.")
    critical_scores: dict[int, float] = Field(
        description="Mean score of NTK at each pair that was tried, on the first samples."
    )
    critical_theta: float = Field(description="rope_theta of NTK at that pair.")
    factors: tuple[float, ...] = Field(description="The best factors found, one a pair.")
    attention_factor: float
    attention_searched: bool = Field(
        description="Whether `attention_factor` was searched; else it is LongRoPE's own, or 1 for two lists."
    )
    num_evaluations: int
    num_passes: int = Field(description="Forward passes, those of the decision included.")
    best_by_generation: tuple[float, ...]
    forms: tuple[DecidedForm, ...] = Field(description="All forms on the deciding samples, best first.")
    level_of_each_comparison: float
    chosen: Form = Field(description="What the plan takes.")
    verdict: str = Field(description="The decision, in a sentence.")

    @property
    def is_better(self) -> bool:
        """Whether the found factors are used."""
        return self.chosen == "longrope"


def read_rope_search(path: Path) -> RopeSearchResult:
    """From a `rope_search.json`. UserError where it is missing or not such a file."""
    return read_record(path, RopeSearchResult, "a search for RoPE factors", "delete its folder and run search-rope again")
