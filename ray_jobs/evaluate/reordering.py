"""Which order of retrieved passages the published model answers best with: asks the same questions under every strategy.

This comes last, since `calibrated` needs the recall curve of the evaluation's tasks, which use other samples. The questions are
among the parts from the start. Only the orders wait for the curve, which every run computes from the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.parts import Parts
from data_schemas.reorder import RecallPoint
from data_schemas.samples import REORDER_SAMPLES
from ray_jobs.evaluate.arms import ArmModel, loaded_model
from ray_jobs.evaluate.measure import task_rows
from ray_jobs.evaluate.measuring_units import PASSES_A_UNIT, Kind, Unit, longest_first, rows_name
from ray_jobs.evaluate.workload import KeptWorkload, Workload
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.ranked import RankedQuestion
from tasks.reorder.candidates import candidate_orders

ARM = "fine_tuned"  # what is published
KIND: Kind = "reorder"
_MOST_ORDERS = 5  # of a question; equal orders are one prompt

Rows = list[dict[str, Any]]


def plan_reorder_units(workload: Workload, batch_tokens: int, first_number: int) -> list[Unit]:
    """Units of questions of one length, with all orders of a question together; `window_lengths` counts each order as a prompt.

    The longest come first, and in the rows last.
    """
    units: list[Unit] = []
    for length, questions in workload.ranked.questions.items():
        size = max(1, PASSES_A_UNIT * batch_tokens // (_MOST_ORDERS * length))
        for first in range(0, len(questions), size):
            last = min(first + size, len(questions))
            windows = tuple(_window(question) for question in questions[first:last] for _ in range(_MOST_ORDERS))
            units.append(Unit(0, ARM, KIND, "", length, first, last, len(windows), windows))
    return longest_first(units, first_number)


def _window(question: RankedQuestion) -> int:
    return question.num_tokens + max(len(question.answer), question.max_new_tokens)


def reorder_rows(
    model: Any,
    questions: Sequence[RankedQuestion],
    strategies: Sequence[str],
    curve: Sequence[RecallPoint],
    tokenizer: Any,
    batch_tokens: int,
) -> Rows:
    """REORDER_SAMPLES rows: every question under every strategy. Equal orders are computed once."""
    asked: list[tuple[RankedQuestion, str, list[int]]] = []
    for question in questions:
        orders = candidate_orders(strategies, len(question.passages), question.length, curve, question.seed)
        asked += [(question, strategy, order) for strategy, order in orders.items()]
    prompts: dict[str, TaskPrompt] = {}
    hashes = []
    for question, _, order in asked:
        prompt = question.prompt(order, tokenizer)
        hashes.append(prompt.prompt_hash)
        prompts.setdefault(prompt.prompt_hash, prompt)
    rows = task_rows(model, ARM, tuple(prompts.values()), tokenizer, batch_tokens)
    found = {row["prompt_hash"]: row for row in rows}
    return [
        {name: found[key][name] for name in REORDER_SAMPLES.names if name in found[key]}
        | {"strategy": strategy, "order": order, "gold_rank": question.gold_rank}
        for key, (question, strategy, order) in zip(hashes, asked, strict=True)
    ]


@dataclass(frozen=True)
class MeasureReorder:
    """Measures a unit of `plan_reorder_units` on a worker, and writes its rows among the parts."""

    models: ArmModel
    batch_tokens: int
    parts: Parts
    strategies: tuple[str, ...]
    curve: tuple[RecallPoint, ...]

    def __call__(self, unit: Unit) -> list[str]:
        questions = KeptWorkload(self.parts).questions_of(unit.length)[unit.first : unit.last]
        model, tokenizer = loaded_model(self.models, unit.arm), self.models.tokenizer()
        rows = reorder_rows(model, questions, self.strategies, self.curve, tokenizer, self.batch_tokens)
        with self.parts.writing(rows_name(KIND, unit.number)) as path:
            pq.write_table(pa.Table.from_pylist(rows, schema=REORDER_SAMPLES), path)
        return [KIND]
