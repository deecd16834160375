"""Effective context length: how many tokens a model really uses, in four senses, each with an interval.

Every sense is a threshold. The effective length is the longest measured length that keeps it, with no failing length below.
`value` judges by the point estimate, `lower` by the unfavourable bound of the measurement's interval, and `upper` by the
favourable bound, so at the next measured length even that bound breaks the threshold. A length is at most
`longest_measured`: an effective length equal to that may be longer in truth.

Two limits. For a task, bounds treat the base's score as exact and ignore its own interval. And `upper` does not prove that the
model is worse beyond it, as each length is judged on its own at the intervals' level.

within_margin  perplexity over the base's at its own window stays below 1 + margin
perplexity     perplexity does not rise above the base's at its own window at all
task_scores    the score keeps 0.9 of the base's score at its own window, for each task and for the mean over tasks; where
               the base does not do the task, its recall gain replaces the score
ruler          the mean score over RULER's 13 configurations, as published, is at least 85.6 %, what Llama 2 7B (chat) has at 4096
               tokens (Hsieh et al. 2024, arXiv 2404.06654); not judged where one of them was not run
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import pyarrow as pa

from data_schemas.report import EvaluationSettings
from data_schemas.report_sections import (
    BaseReference,
    EffectiveContextLengths,
    EffectiveLength,
    PerplexityLengths,
    RulerLengths,
    TaskLengths,
    TaskScoreLengths,
)
from data_schemas.samples import QUANTISED_ARM, is_served_arm
from tasks.evaluate.published.names import RULER_PUBLISHED
from tasks.evaluate.statistics.estimates import Estimate
from tasks.evaluate.statistics.non_inferiority import does_task
from tasks.evaluate.statistics.perplexity_rows import Cell, ratio_of
from tasks.evaluate.statistics.score_estimates import mean_gain, mean_score
from tasks.evaluate.statistics.task_cells import TaskCells, TaskKey

KEPT_SHARE = 0.9
RULER_THRESHOLD = 0.856


def effective_length(
    estimates: dict[int, Estimate], keeps: Callable[[float], bool], *, higher_is_better: bool
) -> EffectiveLength:
    """The longest lengths up to which value, unfavourable and favourable bound keep the threshold.

    Where there is no interval, the unfavourable bound keeps nothing and the favourable one everything.

    Args:
        estimates: of each length that counts, at least one.
        keeps: whether a measured number keeps the threshold.
    """
    lengths = sorted(estimates)

    def longest(bound: Callable[[Estimate], float | None], *, if_unknown: bool) -> int | None:
        reached = None
        for length in lengths:
            number = bound(estimates[length])
            if not (if_unknown if number is None else keeps(number)):
                break
            reached = length
        return reached

    def low(estimate: Estimate) -> float | None:
        return estimate.low

    def high(estimate: Estimate) -> float | None:
        return estimate.high

    unfavourable, favourable = (low, high) if higher_is_better else (high, low)
    return EffectiveLength(
        value=longest(lambda e: e.value, if_unknown=False),
        lower=longest(unfavourable, if_unknown=False),
        upper=longest(favourable, if_unknown=True),
        longest_measured=lengths[-1],
    )


def effective_context_lengths(
    perplexity: dict[Cell, pa.Table], tasks: TaskCells, settings: EvaluationSettings
) -> EffectiveContextLengths:
    """The report's section."""
    margin = settings.non_inferiority_margin
    within = _by_perplexity(perplexity, settings, lambda ratio: ratio < 1 + margin)
    return EffectiveContextLengths(
        criterion="longest measured length, from the base's window on and with no failing one below it, where the upper "
        "bound of perplexity over the base's perplexity at its window is below 1 + margin",
        margin=margin,
        arms={arm: length.lower for arm, length in within.items()},
        within_margin=PerplexityLengths(criterion=f"perplexity over the base's at its window < {1 + margin:g}", arms=within),
        perplexity=PerplexityLengths(
            criterion="perplexity over the base's at its window <= 1",
            arms=_by_perplexity(perplexity, settings, lambda ratio: ratio <= 1),
        ),
        task_scores=TaskScoreLengths(
            criterion=f"score >= {KEPT_SHARE:g} of the base's at its window",
            share=KEPT_SHARE,
            tasks=tuple(_by_task_scores(tasks, settings)),
        ),
        ruler=_by_ruler(tasks, settings),
    )


def _by_perplexity(
    cells: dict[Cell, pa.Table], settings: EvaluationSettings, keeps: Callable[[float], bool]
) -> dict[str, EffectiveLength]:
    window = settings.base_window
    reference = Cell("base", window)
    found = {}
    for arm in _arms(cells):
        lengths = [cell.length for cell in cells if cell.arm == arm and cell.length >= window]
        if lengths and reference in cells:
            ratios = {length: ratio_of(cells, Cell(arm, length), reference, settings) for length in lengths}
            found[arm] = effective_length(ratios, keeps, higher_is_better=False)
    return found


def _by_task_scores(cells: TaskCells, settings: EvaluationSettings) -> list[TaskLengths]:
    """An entry a task, and one for the mean over those that the base does, where there are several."""
    entries = [_by_scores_of(cells, (task,), settings) for task in dict.fromkeys(key.task for key in cells)]
    done = tuple(entry.task for entry in entries if entry.measure == "score")
    return [*entries, _by_scores_of(cells, done, settings)] if len(done) > 1 else entries


def _by_scores_of(cells: TaskCells, tasks: tuple[str, ...], settings: EvaluationSettings) -> TaskLengths:
    window = settings.base_window
    task = tasks[0] if len(tasks) == 1 else "mean"
    scores = scores_by_length(cells, "base", tasks, settings)
    if window not in scores:
        return _unmeasured(task, f"not measurable: the base was not asked at its window of {window} tokens")
    score = scores[window]
    if does_task(score):
        lengths = {arm: scores_by_length(cells, arm, tasks, settings) for arm in _arms(cells)}
        return _kept_share(task, "score", score, lengths, reason=None)
    reason = f"not measurable by score: base answers {score.value:.0%}"
    gain = _gains_by_length(cells, "base", tasks, settings).get(window)
    if gain is None or gain.low is None or gain.low <= 0:
        return _unmeasured(task, f"{reason}, and its recall gain is not above 0")
    lengths = {arm: _gains_by_length(cells, arm, tasks, settings) for arm in _arms(cells)}
    return _kept_share(task, "gain", gain, lengths, reason=f"{reason}; by recall gain")


def _unmeasured(task: str, reason: str) -> TaskLengths:
    return TaskLengths(task=task, measure=None, reference=None, arms={}, reason=reason)


def _kept_share(
    task: str,
    measure: Literal["score", "gain"],
    reference: Estimate,
    by_arm: dict[str, dict[int, Estimate]],
    *,
    reason: str | None,
) -> TaskLengths:
    def keeps(number: float) -> bool:
        return number >= KEPT_SHARE * reference.value

    return TaskLengths(
        task=task,
        measure=measure,
        reference=BaseReference(value=reference.value, low=reference.low, high=reference.high),
        arms=_kept_by_arm(by_arm, keeps),
        reason=reason,
    )


def _kept_by_arm(by_arm: dict[str, dict[int, Estimate]], keeps: Callable[[float], bool]) -> dict[str, EffectiveLength]:
    """The arms that have estimates."""
    return {arm: effective_length(of_arm, keeps, higher_is_better=True) for arm, of_arm in by_arm.items() if of_arm}


def _by_ruler(cells: TaskCells, settings: EvaluationSettings) -> RulerLengths:
    asked = {key.task for key in cells}
    tasks = RULER_PUBLISHED if asked.issuperset(RULER_PUBLISHED) else ()
    by_arm = {arm: scores_by_length(cells, arm, tasks, settings) for arm in _arms(cells)} if tasks else {}
    return RulerLengths(
        criterion=f"mean score over RULER's 13 configurations, as published, >= {RULER_THRESHOLD:.1%}",
        tasks=tasks,
        arms=_kept_by_arm(by_arm, lambda score: score >= RULER_THRESHOLD),
        reason=None if tasks else "RULER's 13 configurations were not all run as published (evaluation.published)",
    )


def scores_by_length(cells: TaskCells, arm: str, tasks: Sequence[str], settings: EvaluationSettings) -> dict[int, Estimate]:
    """Mean over `tasks` of an arm's scores, at the lengths where all of them were asked."""
    return {
        length: mean_score([cells[TaskKey(arm, task, length)].scores for task in tasks], confidence=settings.confidence)
        for length in _common_lengths(cells, arm, tasks)
    }


def _gains_by_length(cells: TaskCells, arm: str, tasks: Sequence[str], settings: EvaluationSettings) -> dict[int, Estimate]:
    gains = {
        length: mean_gain([cells[TaskKey(arm, task, length)].gains for task in tasks], confidence=settings.confidence)
        for length in _common_lengths(cells, arm, tasks)
    }
    return {length: gain for length, gain in gains.items() if gain is not None}


def _common_lengths(cells: TaskCells, arm: str, tasks: Iterable[str]) -> list[int]:
    of_task = [{key.length for key in cells if (key.arm, key.task) == (arm, task)} for task in tasks]
    return sorted(set.intersection(*of_task))


def _arms(cells: Iterable[Cell | TaskKey]) -> list[str]:
    """Without those that are measured up to the base's window only, or only to be compared with the published model."""
    return list(dict.fromkeys(key.arm for key in cells if not is_served_arm(key.arm) and key.arm != QUANTISED_ARM))
