"""The evaluation report, computed from the per-sample rows and the settings alone; `data_schemas.report` describes it."""

from __future__ import annotations

from data_schemas.evaluation_params import TASK_NAMES
from data_schemas.report import SCHEMA_VERSION, EvaluationSettings, Report
from data_schemas.report_sections import RecallRow
from tasks.evaluate.power.plan import planned_power
from tasks.evaluate.report.reorder_section import reorder_section
from tasks.evaluate.sample_set import Samples
from tasks.evaluate.statistics.effective_length import effective_context_lengths
from tasks.evaluate.statistics.estimates import RESAMPLES
from tasks.evaluate.statistics.long_ppl import long_ppl
from tasks.evaluate.statistics.lost_in_the_middle import lost_in_the_middle
from tasks.evaluate.statistics.non_inferiority import non_inferiority
from tasks.evaluate.statistics.paired_tests import paired_families
from tasks.evaluate.statistics.perplexity_rows import (
    comparisons,
    perplexity_cells,
    perplexity_row,
    position_rows,
    protocol_rows,
)
from tasks.evaluate.statistics.ratios_by_length import ratios_by_length
from tasks.evaluate.statistics.spacing import spacing_rows
from tasks.evaluate.statistics.task_cells import TaskCells, task_cells
from tasks.evaluate.statistics.task_rows import recall_by_position, rows_by_depth, rows_over_depths


def build_report(samples: Samples, settings: EvaluationSettings) -> Report:
    """The report of an evaluation's rows; it holds `settings` without the folders of this machine.

    Raises:
        ValueError: the arms were not all measured on the same documents or prompts.
    """
    arms = samples.arms(settings.arms)
    cells = perplexity_cells(samples.perplexity, arms)
    prompts = _prompt_cells(samples, settings)
    by_depth = tuple(rows_by_depth(prompts, settings))
    recall = recall_by_position(by_depth, settings.target_length)
    return Report(
        schema_version=SCHEMA_VERSION,
        settings=settings.publishable().model_copy(update={"bootstrap_resamples": RESAMPLES}),
        perplexity=tuple(perplexity_row(cell, rows, settings) for cell, rows in cells.items()),
        comparisons=tuple(comparisons(cells, settings)),
        position=tuple(position_rows(samples.position, arms, settings)),
        protocols=tuple(protocol_rows(samples.protocol, arms, settings)),
        longppl=long_ppl(cells, settings),
        tasks=by_depth,
        task_means=tuple(rows_over_depths(prompts, settings)),
        tests=paired_families(prompts, settings),
        non_inferiority=non_inferiority(cells, prompts, settings),
        effective_context_length=effective_context_lengths(cells, prompts, settings),
        lost_in_the_middle=lost_in_the_middle(prompts, settings),
        recall_by_position=recall,
        reorder=reorder_section(samples.reorder, recall, settings),
        ratios_by_length=tuple(ratios_by_length(cells, settings)),
        power=planned_power(settings),
        spacing=spacing_rows(samples.task, arms, settings),
    )


def recall_curve(samples: Samples, settings: EvaluationSettings) -> tuple[RecallRow, ...]:
    """What `build_report` gives as `recall_by_position`."""
    return recall_by_position(tuple(rows_by_depth(_prompt_cells(samples, settings), settings)), settings.target_length)


def _prompt_cells(samples: Samples, settings: EvaluationSettings) -> TaskCells:
    tasks = list(dict.fromkeys((*settings.tasks, *TASK_NAMES, *samples.task["task"].unique().to_pylist())))
    return task_cells(samples.task, samples.arms(settings.arms), tasks)
