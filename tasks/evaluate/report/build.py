"""The evaluation report, computed from the per-sample rows alone, so that anybody can recompute every figure.

    {"schema_version": 3,
     "settings": {...},
     "perplexity": [{arm, length, num_documents, num_tokens, perplexity, low, high}],
     "comparisons": [{name, numerator: {arm, length}, denominator: {arm, length}, ratio, low, high, num_documents}],
     "position": [{arm, length, start, end, num_documents, num_tokens, perplexity, low, high}],
     "protocols": [{arm, protocol, label, length, num_documents, num_windows, num_tokens, perplexity, low, high}],
     "longppl": {evaluator, long, short, num_key_tokens, num_documents, reason, cells: [{arm, length, longppl, low, high}]},
     "tasks": [{arm, task, length, depth, n, accuracy, low, high, interval, gain, gain_low, gain_high}],
     "task_means": [the same over all depths, with num_samples instead of depth],
     "tests": [{first, second, method, tests: [{task, length, num_samples, num_prompts, difference, low, high,
                samples_first_better, samples_second_better, prompts_first_better, prompts_second_better,
                p_value, p_holm, p_value_prompts}]}],
     "non_inferiority": {margin, base_window, perplexity: [{arm, ratio, low, high, verdict}],
                         tasks: [{arm, task, base_score, difference, low, high, num_samples, verdict}]},
     "effective_context_length": {criterion, margin, arms: {arm: tokens or null}, and of each sense (effective_length.py):
                                  within_margin | perplexity | ruler: {criterion, arms: {arm: LENGTH}},
                                  task_scores: {criterion, share, tasks: [{task, measure, reference, reason, arms}]}},
     "lost_in_the_middle": [{arm, task, length, num_samples, depths, score: INDEX, gain: INDEX or null}],
     "recall_by_position": [rows of `tasks` of the served model and one task, `accuracy` being named `recall`],
     "reorder": {reason, arm, num_questions, num_passages, calibrated, decision} (report_reorder.py)}

    LENGTH = {value, lower, upper, longest_measured}, tokens
    INDEX = {index, low, high, p_value, p_holm, first_minus_middle, last_minus_middle}

Perplexities are token-weighted, gains are nats per answer, depths lie in [0, 1], scores in [0, 1]. Bounds are null where
one sample allows none. A section without rows is empty, not missing.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from data_schemas.evaluation_params import TASK_NAMES
from tasks.evaluate.report.reorder_section import reorder_section
from tasks.evaluate.report.task_rows import recall_by_position, rows_by_depth, rows_over_depths
from tasks.evaluate.sample_set import Samples
from tasks.evaluate.statistics.effective_length import effective_context_lengths
from tasks.evaluate.statistics.estimates import RESAMPLES
from tasks.evaluate.statistics.long_ppl import long_ppl
from tasks.evaluate.statistics.lost_in_the_middle import lost_in_the_middle
from tasks.evaluate.statistics.paired_tests import non_inferiority, paired_families
from tasks.evaluate.statistics.perplexity_rows import (
    comparisons,
    perplexity_cells,
    perplexity_row,
    position_rows,
    protocol_rows,
)
from tasks.evaluate.statistics.task_cells import TaskCells, task_cells

__all__ = ["SCHEMA_VERSION", "Report", "Samples", "build_report", "find_comparison"]

SCHEMA_VERSION = 3

Report = dict[str, Any]


def build_report(samples: Samples, settings: dict[str, Any]) -> Report:
    """The report of an evaluation's rows.

    Args:
        settings: written into the report; `base_window` and `target_length` (tokens), `confidence`, `seed` and
            `non_inferiority_margin` are used, and where given `longppl_evaluator` and the order of `arms` and `tasks`.

    Raises:
        ValueError: the rows do not hold the same documents or prompts for every arm.
    """
    arms = samples.arms(settings.get("arms") or ())
    cells = perplexity_cells(samples.perplexity, arms)
    prompts = _prompt_cells(samples, settings)
    by_depth = list(rows_by_depth(prompts, settings))
    recall = recall_by_position(by_depth, settings["target_length"])
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": {**publishable(settings), "bootstrap_resamples": RESAMPLES},
        "perplexity": [perplexity_row(cell, rows, settings) for cell, rows in cells.items()],
        "comparisons": list(comparisons(cells, settings)),
        "position": list(position_rows(samples.position, arms, settings)),
        "protocols": list(protocol_rows(samples.protocol, arms, settings)),
        "longppl": long_ppl(cells, settings),
        "tasks": by_depth,
        "task_means": list(rows_over_depths(prompts, settings)),
        "tests": paired_families(prompts, settings),
        "non_inferiority": non_inferiority(cells, prompts, settings),
        "effective_context_length": effective_context_lengths(cells, prompts, settings),
        "lost_in_the_middle": lost_in_the_middle(prompts, settings),
        "recall_by_position": recall,
        "reorder": reorder_section(samples.reorder, recall, settings),
    }


def recall_curve(samples: Samples, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What `build_report` gives as `recall_by_position`."""
    return recall_by_position(list(rows_by_depth(_prompt_cells(samples, settings), settings)), settings["target_length"])


def _prompt_cells(samples: Samples, settings: dict[str, Any]) -> TaskCells:
    arms = samples.arms(settings.get("arms") or ())
    tasks = list(dict.fromkeys((*(settings.get("tasks") or ()), *TASK_NAMES, *samples.task["task"].unique().to_pylist())))
    return task_cells(samples.task, arms, tasks)


def find_comparison(report: Report, numerator: tuple[str, int], denominator: tuple[str, int]) -> dict[str, Any] | None:
    """The comparison of two (arm, length) cells, or None where it was not measured."""
    for row in report["comparisons"]:
        if (row["numerator"]["arm"], row["numerator"]["length"]) == numerator:
            if (row["denominator"]["arm"], row["denominator"]["length"]) == denominator:
                found: dict[str, Any] = row
                return found
    return None


def publishable(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the folders of this machine."""
    qa_file = settings.get("qa_file")
    return {**settings, "qa_file": PurePath(qa_file).name} if qa_file else settings
