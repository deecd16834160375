"""Paired tests: does the fine-tuned model score higher than another arm, and did it lose anything at short context?

The unit of a test is the sample. A sample that is asked at several depths is discordant when one model scores higher on it over
all its depths. With one depth a sample and right-or-wrong scores that is McNemar's exact test. A p-value over single
prompts is given too: it treats depths as independent and is not corrected.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from data_schemas.report import EvaluationSettings
from data_schemas.report_sections import NonInferiority, PairedTest, PairedTestFamily, PerplexityVerdict, TaskVerdict, Verdict
from tasks.evaluate.statistics.estimates import Estimate, is_non_inferior
from tasks.evaluate.statistics.hypothesis_tests import holm, mcnemar_exact
from tasks.evaluate.statistics.perplexity_rows import Cell, ratio_of
from tasks.evaluate.statistics.score_estimates import Sampled, mean_difference, mean_score
from tasks.evaluate.statistics.task_cells import TaskCells, TaskKey, TaskRows

# A lower score says that the model does not do the task at all.
SCORE_FLOOR = 0.1
_PAIRS = (("fine_tuned", "scaling_only"), ("fine_tuned", "base"), ("scaling_only", "base"))
METHOD = (
    "exact McNemar test over samples (a sample is discordant when one model scores higher on it over all its depths); "
    "Holm's correction over all tasks and lengths of a pair of models"
)


def paired_families(cells: TaskCells, settings: EvaluationSettings) -> tuple[PairedTestFamily, ...]:
    """One family of tests for each pair of arms; Holm's correction covers every task and length, findings or not."""
    arms = {key.arm for key in cells}
    wanted = _PAIRS[:2] if "fine_tuned" in arms else _PAIRS[2:]
    families = []
    for first, second in wanted:
        keys = [key for key in cells if key.arm == first and key._replace(arm=second) in cells]
        counts = [_discordant(_per_sample(cells[key], cells[key._replace(arm=second)])) for key in keys]
        p_values = [mcnemar_exact(*of_test) for of_test in counts]
        tests = tuple(
            _test(cells, key, second, settings, of_test, p_value, p_holm)
            for key, of_test, p_value, p_holm in zip(keys, counts, p_values, holm(p_values), strict=True)
        )
        if tests:
            families.append(PairedTestFamily(first=first, second=second, method=METHOD, tests=tests))
    return tuple(families)


def _per_sample(one: TaskRows, other: TaskRows) -> np.ndarray:
    """Summed score of `one` minus that of `other`, [samples]."""
    return Sampled(one.score - other.score, one.sample).totals()[0]


def _test(
    cells: TaskCells,
    key: TaskKey,
    second: str,
    settings: EvaluationSettings,
    sample_counts: tuple[int, int],
    p_value: float,
    p_holm: float,
) -> PairedTest:
    """`sample_counts`: samples on which the first and the second model score higher."""
    one, other = cells[key], cells[key._replace(arm=second)]
    difference = mean_difference(one.scores, other.scores, confidence=settings.confidence)
    prompt_counts = _discordant(one.score - other.score)
    return PairedTest(
        task=key.task,
        length=key.length,
        num_samples=one.num_samples,
        num_prompts=len(one.score),
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        samples_first_better=sample_counts[0],
        samples_second_better=sample_counts[1],
        prompts_first_better=prompt_counts[0],
        prompts_second_better=prompt_counts[1],
        p_value=p_value,
        p_value_prompts=mcnemar_exact(*prompt_counts),
        p_holm=p_holm,
    )


def _discordant(differences: np.ndarray) -> tuple[int, int]:
    return int((differences > 1e-12).sum()), int((differences < -1e-12).sum())


def non_inferiority(perplexity: dict[Cell, pa.Table], cells: TaskCells, settings: EvaluationSettings) -> NonInferiority:
    """At the base's window: perplexity's ratio and each score's difference to the base, against the declared margin.

    The verdict is `non_inferior` when the unfavourable bound lies within the margin, `inferior` when the favourable one
    lies beyond it, else `not_shown`. It is `not_measurable` for a task that the base does not do.
    """
    return NonInferiority(
        margin=settings.non_inferiority_margin,
        base_window=settings.base_window,
        perplexity=tuple(_perplexity_verdicts(perplexity, settings)),
        tasks=tuple(_task_verdicts(cells, settings)),
    )


def _perplexity_verdicts(cells: dict[Cell, pa.Table], settings: EvaluationSettings) -> Iterator[PerplexityVerdict]:
    window, margin = settings.base_window, settings.non_inferiority_margin
    reference = Cell("base", window)
    for cell in cells:
        if cell.length != window or cell.arm == "base" or reference not in cells:
            continue
        ratio = ratio_of(cells, cell, reference, settings)
        is_inferior = ratio.low is not None and ratio.low >= 1 + margin
        yield PerplexityVerdict(
            arm=cell.arm,
            ratio=ratio.value,
            low=ratio.low,
            high=ratio.high,
            verdict="non_inferior" if is_non_inferior(ratio, margin) else "inferior" if is_inferior else "not_shown",
        )


def does_task(score: Estimate) -> bool:
    """Whether a score is high enough that a share or a loss of it says something."""
    return score.value >= SCORE_FLOOR


def _task_verdicts(cells: TaskCells, settings: EvaluationSettings) -> Iterator[TaskVerdict]:
    window = settings.base_window
    for key, rows in cells.items():
        reference = cells.get(key._replace(arm="base"))
        if key.length != window or key.arm == "base" or reference is None:
            continue
        base = mean_score([reference.scores], confidence=settings.confidence)
        change = mean_difference(rows.scores, reference.scores, confidence=settings.confidence)
        yield TaskVerdict(
            arm=key.arm,
            task=key.task,
            base_score=base.value,
            difference=change.value,
            low=change.low,
            high=change.high,
            num_samples=rows.num_samples,
            verdict=_task_verdict(change, settings.non_inferiority_margin) if does_task(base) else "not_measurable",
        )


def _task_verdict(change: Estimate, margin: float) -> Verdict:
    low, high = change.low or 0.0, change.high or 0.0
    return "non_inferior" if low > -margin else "inferior" if high <= -margin else "not_shown"
