"""Whether the fine-tuned model answers other prompts right than another arm, and whether it lost nothing at short context.

The unit of a test is the sample: one that stands at several depths is discordant when one model scores higher on it over
all its depths. With one depth a sample and right-or-wrong scores that is McNemar's exact test. The p-value over single
prompts, which takes depths for independent, is given beside it and corrected for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.evaluate.statistics.estimates import Estimate, is_non_inferior
from tasks.evaluate.statistics.hypothesis_tests import holm, mcnemar_exact
from tasks.evaluate.statistics.perplexity_rows import Cell, Settings, ratio_of
from tasks.evaluate.statistics.scores import Sampled, mean_difference, mean_score
from tasks.evaluate.statistics.task_cells import TaskCells, TaskKey

# A lower score says that the model does not do the task at all.
SCORE_FLOOR = 0.1
_PAIRS = (("fine_tuned", "scaling_only"), ("fine_tuned", "base"), ("scaling_only", "base"))
METHOD = (
    "exact McNemar test over samples (a sample is discordant when one model scores higher on it over all its depths); "
    "Holm's correction over all tasks and lengths of a pair of models"
)


def paired_families(cells: TaskCells, settings: Settings) -> list[dict[str, Any]]:
    """One family of tests for each pair of arms; its p-values adjusted over every task and length, nulls included."""
    arms = {key.arm for key in cells}
    wanted = _PAIRS[:2] if "fine_tuned" in arms else _PAIRS[2:]
    families = []
    for first, second in wanted:
        tests = [_test(cells, key, second, settings) for key in cells if key.arm == first and key._replace(arm=second) in cells]
        for test, adjusted in zip(tests, holm([t["p_value"] for t in tests]), strict=True):
            test["p_holm"] = adjusted
        if tests:
            families.append({"first": first, "second": second, "method": METHOD, "tests": tests})
    return families


def _test(cells: TaskCells, key: TaskKey, second: str, settings: Settings) -> dict[str, Any]:
    one, other = cells[key], cells[key._replace(arm=second)]
    difference = mean_difference(one.scores, other.scores, confidence=settings["confidence"])
    per_sample = Sampled(one.score - other.score, one.sample).totals()[0]
    sample_counts, prompt_counts = _discordant(per_sample), _discordant(one.score - other.score)
    return {
        "task": key.task,
        "length": key.length,
        "num_samples": one.num_samples,
        "num_prompts": len(one.score),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "samples_first_better": sample_counts[0],
        "samples_second_better": sample_counts[1],
        "prompts_first_better": prompt_counts[0],
        "prompts_second_better": prompt_counts[1],
        "p_value": mcnemar_exact(*sample_counts),
        "p_value_prompts": mcnemar_exact(*prompt_counts),
    }


def _discordant(differences: np.ndarray) -> tuple[int, int]:
    return int((differences > 1e-12).sum()), int((differences < -1e-12).sum())


def non_inferiority(perplexity: dict[Cell, pa.Table], cells: TaskCells, settings: Settings) -> dict[str, Any]:
    """At the base's window: perplexity's ratio and each score's difference to the base, against the declared margin.

    The verdict is `non_inferior` when the unfavourable bound lies within the margin, `inferior` when the favourable one
    lies beyond it, `not_shown` else, `not_measurable` for a task that the base does not do.
    """
    return {
        "margin": settings["non_inferiority_margin"],
        "base_window": settings["base_window"],
        "perplexity": list(_perplexity_verdicts(perplexity, settings)),
        "tasks": list(_task_verdicts(cells, settings)),
    }


def _perplexity_verdicts(cells: dict[Cell, pa.Table], settings: Settings) -> Iterator[dict[str, Any]]:
    window, margin = settings["base_window"], settings["non_inferiority_margin"]
    reference = Cell("base", window)
    for cell in cells:
        if cell.length != window or cell.arm == "base" or reference not in cells:
            continue
        ratio = ratio_of(cells, cell, reference, settings)
        is_inferior = ratio.low is not None and ratio.low >= 1 + margin
        verdict = "non_inferior" if is_non_inferior(ratio, margin) else "inferior" if is_inferior else "not_shown"
        yield {"arm": cell.arm, "ratio": ratio.value, "low": ratio.low, "high": ratio.high, "verdict": verdict}


def does_task(score: Estimate) -> bool:
    """Whether a score is high enough that a share or a loss of it says something."""
    return score.value >= SCORE_FLOOR


def _task_verdicts(cells: TaskCells, settings: Settings) -> Iterator[dict[str, Any]]:
    window, margin = settings["base_window"], settings["non_inferiority_margin"]
    for key, rows in cells.items():
        reference = cells.get(key._replace(arm="base"))
        if key.length != window or key.arm == "base" or reference is None:
            continue
        base = mean_score([reference.scores], confidence=settings["confidence"])
        change = mean_difference(rows.scores, reference.scores, confidence=settings["confidence"])
        low, high = change.low or 0.0, change.high or 0.0
        verdict = "non_inferior" if low > -margin else "inferior" if high <= -margin else "not_shown"
        if not does_task(base):
            verdict = "not_measurable"
        yield {
            "arm": key.arm,
            "task": key.task,
            "base_score": base.value,
            "difference": change.value,
            "low": change.low,
            "high": change.high,
            "num_samples": rows.num_samples,
            "verdict": verdict,
        }
