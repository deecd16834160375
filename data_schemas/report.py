"""The evaluation's `settings.json` and `report.json`, which hold all figures of an evaluation.

Every figure is computed from the per-sample rows (`data_schemas.samples`) and the settings alone, so anybody can recompute it.
Perplexities are token-weighted, gains are nats per answer, scores and depths lie in [0, 1], lengths are tokens. `low` and
`high` are the bounds of an interval at the level `settings.confidence`; they are null where one sample allows none. A section
without rows is empty, not missing.

A file keeps the order of the fields below. A field that was not set is left out of the file, so that files of older
versions read and write unchanged.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Literal

from pydantic import Field

from data_schemas.record import Record, read_record
from data_schemas.reorder import ReorderDecision
from data_schemas.report_origin import MeasuredWith
from data_schemas.report_sections import (
    ComparisonRow,
    EffectiveContextLengths,
    LongPpl,
    MiddleRow,
    PerplexityRow,
    PositionRow,
    ProtocolRow,
    RatioByLength,
    RecallRow,
    ReorderSection,
    SpacingRow,
    TaskMeanRow,
    TaskRow,
)
from data_schemas.report_seen import SeenText
from data_schemas.report_verdicts import NonInferiority, PairedTestFamily, Power

SCHEMA_VERSION: Literal[3] = 3
_AS_WRITTEN = "give the folder of an evaluation, or `evaluation` of a release, as it was written"


class BenchmarkResults(Record):
    """What lm-evaluation-harness says of one model: {task: {metric: value}}."""

    version: str
    results: dict[str, dict[str, float]]
    num_fewshot: dict[str, int]


class EvaluationSettings(Record):
    """How an evaluation was measured; enough to compute its report from its rows again.

    The first fields are those of `EvaluationParams`. Files of older versions lack some of the optional ones.
    """

    lengths: tuple[int, ...] = ()
    target_tokens: int
    position_curve: bool = False
    protocols: tuple[str, ...] = Field(default=(), description="In files of older versions: yarn and longlora.")
    published: tuple[str, ...] = ()
    published_data: dict[str, str] = Field(default={}, description="Names and SHA-256 of the authors' files.")
    published_samples: int | None = None
    longppl_evaluator: str | None = None
    tasks: tuple[str, ...] = ()
    task_lengths: dict[str, tuple[int, ...]] = Field(default={}, description="The lengths of each task, ascending.")
    num_depths: int | None = None
    num_samples: int | None = Field(default=None, description="As measured.")
    detectable_effect: float | None = Field(default=None, description="In percentage points.")
    time_budget: float | None = Field(default=None, description="In minutes.")
    qa_file: str | None = None
    chat_template: bool = Field(default=False, description="Prompts of tasks went through the base's chat template.")
    reorder_samples: int = 0
    arms: tuple[str, ...] = Field(default=(), description="The measured models, in the order of the report.")
    as_served: bool = False
    lm_eval_tasks: tuple[str, ...] = ()
    lm_eval_include: str | None = None
    lm_eval_limit: int | None = None
    non_inferiority_margin: float
    max_seen_share: float | None = None
    confidence: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)
    arms_left_out: dict[str, str] = Field(default={}, description="Models that were not measured, with the reason.")
    as_served_note: str = Field(default="", description="Why no model was measured as vLLM serves it.")
    published_left_out: dict[str, str] = Field(
        default={}, description="Published tasks that were not measured, with the reason."
    )
    reorder_left_out: str = Field(default="", description="Why the orders of passages were not compared.")
    base_window: int = Field(ge=1)
    target_length: int = Field(ge=1)
    rope_method: str = ""
    trained_on_check: str = Field(default="", description="Whether the documents were compared with the training data.")
    seen_text: SeenText | None = Field(
        default=None, description="How much of the held-out text was in training; null where it was not measured."
    )
    base_precision: str = Field(default="", description="How training held the base's weights, where that was not in full.")
    lm_eval: dict[str, BenchmarkResults] = Field(default={}, description="By model.")
    bootstrap_resamples: int | None = Field(default=None, description="In a report only.")
    measured_with: MeasuredWith | None = Field(default=None, description="Null in files of older versions.")

    def publishable(self) -> EvaluationSettings:
        """Without the folders of this machine."""
        given = {name: path for name in ("qa_file", "lm_eval_include") if (path := getattr(self, name))}
        return self.model_copy(update={name: PurePath(path).name for name, path in given.items()}) if given else self


class Report(Record):
    """The whole `report.json`. Version 2 has no `reorder`."""

    schema_version: Literal[2, 3]
    settings: EvaluationSettings
    perplexity: tuple[PerplexityRow, ...]
    comparisons: tuple[ComparisonRow, ...]
    position: tuple[PositionRow, ...]
    protocols: tuple[ProtocolRow, ...]
    longppl: LongPpl
    tasks: tuple[TaskRow, ...]
    task_means: tuple[TaskMeanRow, ...]
    tests: tuple[PairedTestFamily, ...]
    non_inferiority: NonInferiority
    effective_context_length: EffectiveContextLengths
    lost_in_the_middle: tuple[MiddleRow, ...]
    recall_by_position: tuple[RecallRow, ...]
    reorder: ReorderSection | None = None
    ratios_by_length: tuple[RatioByLength, ...] = ()
    power: Power | None = Field(default=None, description="Null in files of older versions.")
    spacing: tuple[SpacingRow, ...] = ()

    @property
    def reorder_decision(self) -> ReorderDecision | None:
        """Which order of passages was measured to be best; None where none was compared."""
        return self.reorder.decision if self.reorder else None

    def comparison(self, numerator: tuple[str, int], denominator: tuple[str, int]) -> ComparisonRow | None:
        """The comparison of two (arm, length) cells, or None where it was not measured."""
        for row in self.comparisons:
            compared = (row.numerator.arm, row.numerator.length), (row.denominator.arm, row.denominator.length)
            if compared == (numerator, denominator):
                return row
        return None

    def task_mean(self, arm: str, task: str, length: int) -> TaskMeanRow | None:
        """The score over all depths, or None where it was not measured."""
        return next((row for row in self.task_means if (row.arm, row.task, row.length) == (arm, task, length)), None)


def record_json(record: Record) -> str:
    """The text of a settings or report file."""
    return json.dumps(record.model_dump(mode="json", exclude_unset=True), indent=1, allow_nan=False) + "\n"


def read_settings(path: Path) -> EvaluationSettings:
    """From a `settings.json`. UserError where it is missing or not such a file."""
    return read_record(path, EvaluationSettings, "an evaluation's settings", _AS_WRITTEN)


def read_report(path: Path) -> Report:
    """From a `report.json`. UserError where it is missing or not such a file."""
    return read_record(path, Report, "an evaluation's report", _AS_WRITTEN)
