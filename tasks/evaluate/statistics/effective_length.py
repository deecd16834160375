"""Effective context length: how many tokens a model really uses, in four senses, each with an interval.

Every sense is a threshold that a measurement must keep, and the longest measured length which keeps it with no failing
length below. `value` judges by the point estimate; `lower` by the unfavourable bound of the measurement's interval;
`upper` by the favourable bound, so at the next measured length even that breaks the threshold. Of a task's sense both
take the base's score at its window for known: they say nothing of its own interval. Nor does `upper` say that the model is
surely worse from there on, as each length is judged at the intervals' level alone. A length is at most `longest_measured`:
an effective length equal to that may be longer in truth.

within_margin  perplexity over the base's at its own window stays below 1 + margin
perplexity     perplexity does not rise above the base's at its own window at all
task_scores    the score keeps 0.9 of the base's score at its own window, for each task and for the mean over tasks; where
               the base does not do the task, its recall gain instead
ruler          the mean score of the RULER tasks is at least 85.6 %, what Llama 2 7B has at 4096 tokens (Hsieh et al.
               2024, arXiv 2404.06654, who take the mean over thirteen task configurations, where we take the tasks run)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from data_schemas.evaluation_params import RULER_TASKS
from tasks.evaluate.statistics.estimates import Estimate
from tasks.evaluate.statistics.paired_tests import does_task
from tasks.evaluate.statistics.perplexity_rows import Cell, Settings, ratio_of
from tasks.evaluate.statistics.scores import mean_gain, mean_score
from tasks.evaluate.statistics.task_cells import TaskCells, TaskKey

KEPT_SHARE = 0.9
RULER_THRESHOLD = 0.856


@dataclass(frozen=True)
class EffectiveLength:
    """Tokens; None where already the shortest judged length fails."""

    value: int | None
    lower: int | None
    upper: int | None
    longest_measured: int


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


def effective_context_lengths(perplexity: dict[Cell, pa.Table], tasks: TaskCells, settings: Settings) -> dict[str, Any]:
    """The report's section: `arms`, the lower bounds within the margin, and every sense in full."""
    margin = settings["non_inferiority_margin"]
    within = _by_perplexity(perplexity, settings, lambda ratio: ratio < 1 + margin)
    return {
        "criterion": "longest measured length, from the base's window on and with no failing one below it, where the upper "
        "bound of perplexity over the base's perplexity at its window is below 1 + margin",
        "margin": margin,
        "arms": {arm: length["lower"] for arm, length in within.items()},
        "within_margin": {"criterion": f"perplexity over the base's at its window < {1 + margin:g}", "arms": within},
        "perplexity": {
            "criterion": "perplexity over the base's at its window <= 1",
            "arms": _by_perplexity(perplexity, settings, lambda ratio: ratio <= 1),
        },
        "task_scores": {
            "criterion": f"score >= {KEPT_SHARE:g} of the base's at its window",
            "share": KEPT_SHARE,
            "tasks": _by_task_scores(tasks, settings),
        },
        "ruler": _by_ruler(tasks, settings),
    }


def _by_perplexity(
    cells: dict[Cell, pa.Table], settings: Settings, keeps: Callable[[float], bool]
) -> dict[str, dict[str, Any]]:
    window = settings["base_window"]
    reference = Cell("base", window)
    found = {}
    for arm in dict.fromkeys(cell.arm for cell in cells):
        lengths = [cell.length for cell in cells if cell.arm == arm and cell.length >= window]
        if lengths and reference in cells:
            ratios = {length: ratio_of(cells, Cell(arm, length), reference, settings) for length in lengths}
            found[arm] = asdict(effective_length(ratios, keeps, higher_is_better=False))
    return found


def _by_task_scores(cells: TaskCells, settings: Settings) -> list[dict[str, Any]]:
    """An entry a task, and one for the mean over those that the base does, where there are several."""
    entries = [_by_scores_of(cells, (task,), settings) for task in dict.fromkeys(key.task for key in cells)]
    done = tuple(entry["task"] for entry in entries if entry["measure"] == "score")
    return [*entries, _by_scores_of(cells, done, settings)] if len(done) > 1 else entries


def _by_scores_of(cells: TaskCells, tasks: tuple[str, ...], settings: Settings) -> dict[str, Any]:
    window = settings["base_window"]
    entry: dict[str, Any] = {"task": tasks[0] if len(tasks) == 1 else "mean", "measure": None, "reference": None, "arms": {}}
    scores = scores_by_length(cells, "base", tasks, settings)
    if window not in scores:
        return entry | {"reason": f"not measurable: the base was not asked at its window of {window} tokens"}
    score = scores[window]
    if does_task(score):
        lengths = {arm: scores_by_length(cells, arm, tasks, settings) for arm in _arms(cells)}
        return entry | _kept_share("score", score, lengths) | {"reason": None}
    reason = f"not measurable by score: base answers {score.value:.0%}"
    gain = _gains_by_length(cells, "base", tasks, settings).get(window)
    if gain is None or gain.low is None or gain.low <= 0:
        return entry | {"reason": f"{reason}, and its recall gain is not above 0"}
    lengths = {arm: _gains_by_length(cells, arm, tasks, settings) for arm in _arms(cells)}
    return entry | _kept_share("gain", gain, lengths) | {"reason": f"{reason}; by recall gain"}


def _kept_share(measure: str, reference: Estimate, by_arm: dict[str, dict[int, Estimate]]) -> dict[str, Any]:
    def keeps(number: float) -> bool:
        return number >= KEPT_SHARE * reference.value

    arms = {
        arm: asdict(effective_length(estimates, keeps, higher_is_better=True)) for arm, estimates in by_arm.items() if estimates
    }
    bounds = {"value": reference.value, "low": reference.low, "high": reference.high}
    return {"measure": measure, "reference": bounds, "arms": arms}


def _by_ruler(cells: TaskCells, settings: Settings) -> dict[str, Any]:
    tasks = tuple(dict.fromkeys(key.task for key in cells if key.task in RULER_TASKS))
    section = {"criterion": f"mean score over the RULER tasks >= {RULER_THRESHOLD:.1%}", "tasks": list(tasks)}
    if not tasks:
        return section | {"arms": {}, "reason": "no RULER task was asked"}
    by_arm = {arm: scores_by_length(cells, arm, tasks, settings) for arm in _arms(cells)}
    arms = {
        arm: asdict(effective_length(estimates, lambda score: score >= RULER_THRESHOLD, higher_is_better=True))
        for arm, estimates in by_arm.items()
        if estimates
    }
    return section | {"arms": arms, "reason": None}


def scores_by_length(cells: TaskCells, arm: str, tasks: Sequence[str], settings: Settings) -> dict[int, Estimate]:
    """Mean over `tasks` of an arm's scores, at the lengths where all of them were asked."""
    return {
        length: mean_score([cells[TaskKey(arm, task, length)].scores for task in tasks], confidence=settings["confidence"])
        for length in _common_lengths(cells, arm, tasks)
    }


def _gains_by_length(cells: TaskCells, arm: str, tasks: Sequence[str], settings: Settings) -> dict[int, Estimate]:
    gains = {
        length: mean_gain([cells[TaskKey(arm, task, length)].gains for task in tasks], confidence=settings["confidence"])
        for length in _common_lengths(cells, arm, tasks)
    }
    return {length: gain for length, gain in gains.items() if gain is not None}


def _common_lengths(cells: TaskCells, arm: str, tasks: Iterable[str]) -> list[int]:
    of_task = [{key.length for key in cells if (key.arm, key.task) == (arm, task)} for task in tasks]
    return sorted(set.intersection(*of_task))


def _arms(cells: TaskCells) -> list[str]:
    return list(dict.fromkeys(key.arm for key in cells))
