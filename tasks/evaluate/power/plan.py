"""The planned comparisons of task scores and of orders of passages, and what each could show at best.

Known from the settings alone, so a plan, the stage before it measures, and the report say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from data_schemas.params import PipelineParams
from data_schemas.report import EvaluationSettings
from data_schemas.report_verdicts import PlannedComparison, Power
from tasks.evaluate.labels import arm_label
from tasks.evaluate.perplexity import evaluation_lengths
from tasks.evaluate.power.best_case import fewest_for_a_test, fewest_for_the_margin, smallest_p
from tasks.evaluate.power.paired_test_power import CORRELATION, DISCORDANT
from tasks.evaluate.power.sample_size import chosen_samples, detectable, prompts_a_sample, samples_to_find
from tasks.evaluate.statistics.non_inferiority import lower_bound_of_equal
from tasks.evaluate.statistics.primary import compared_pairs, primary_length

_ORDERS = 3  # important_first_last, reverse_rank and calibrated, each against none


class PowerSettings(Protocol):
    """What the plan depends on: the fields of `EvaluationSettings` of these names."""

    @property
    def arms(self) -> tuple[str, ...]: ...

    @property
    def tasks(self) -> tuple[str, ...]: ...

    @property
    def task_lengths(self) -> Mapping[str, Sequence[int]]: ...

    @property
    def num_samples(self) -> int | None: ...

    @property
    def num_depths(self) -> int | None: ...

    @property
    def reorder_samples(self) -> int: ...

    @property
    def base_window(self) -> int: ...

    @property
    def confidence(self) -> float: ...

    @property
    def non_inferiority_margin(self) -> float: ...

    @property
    def detectable_effect(self) -> float | None: ...


def planned_power(settings: PowerSettings) -> Power | None:
    """The report's section; None where settings of an older version do not say how many samples were asked or what to find."""
    if settings.num_samples is None or settings.detectable_effect is None:
        return None
    return Power(
        detectable_effect=settings.detectable_effect / 100,
        correlation=CORRELATION,
        discordant=DISCORDANT,
        comparisons=tuple(_comparisons(settings, settings.num_samples)),
    )


def power_of_parameters(params: PipelineParams, base_window: int) -> Power | None:
    """The same before any document is read: every task at every length, on as many samples as asked for."""
    return planned_power(asked_settings(params, base_window)) if params.evaluation.tasks else None


def asked_settings(params: PipelineParams, base_window: int) -> EvaluationSettings:
    """What an evaluation of these parameters asks, before any document is read."""
    evaluation = params.evaluation
    measured = evaluation_lengths(
        evaluation.lengths,
        base_window=base_window,
        target_length=params.model.target_length,
        target_tokens=evaluation.target_tokens,
    )
    lengths = evaluation.task_lengths or measured
    shared = set(EvaluationSettings.model_fields) & set(type(evaluation).model_fields)
    asked = evaluation.model_dump(include=shared - {"chat_template"})  # a choice there, what came of it here
    asked |= {
        "lengths": tuple(measured),
        "task_lengths": {task: tuple(lengths) for task in evaluation.tasks},
        "num_samples": chosen_samples(evaluation),
        "base_window": base_window,
        "target_length": params.model.target_length,
        "published_data": {},
    }
    return EvaluationSettings.model_validate(asked)


def primary_families(settings: PowerSettings) -> Iterator[tuple[str, str, list[str]]]:
    """The two arms and the tasks of each primary family."""
    for first, second in compared_pairs(settings.arms):
        of_task = {
            task: primary_length(second, lengths, settings.base_window)
            for task, lengths in settings.task_lengths.items()
            if task in settings.tasks
        }
        if tasks := [task for task, length in of_task.items() if length is not None]:
            yield first, second, tasks


def _comparisons(settings: PowerSettings, num_samples: int) -> Iterator[PlannedComparison]:
    for first, second, tasks in primary_families(settings):
        where = f"the base's window of {settings.base_window}" if second == "base" else "the longest length"
        name = f"{arm_label(first)} against {arm_label(second)} at {where}"
        yield _test(name, settings, num_samples, len(tasks), prompts_a_sample(tasks, settings.num_depths))
        rest = sum(len(lengths) for lengths in map(set, settings.task_lengths.values())) - len(tasks)
        if rest:
            name = f"{arm_label(first)} against {arm_label(second)} at all other lengths"
            yield _test(name, settings, num_samples, rest, prompts_a_sample(tuple(settings.task_lengths), settings.num_depths))
    if len(set(settings.arms) & {"base", "scaling_only", "fine_tuned"}) > 1 and "base" in settings.arms:
        if any(settings.base_window in lengths for lengths in settings.task_lengths.values()):
            yield _margin(settings, num_samples)
    if settings.reorder_samples and "fine_tuned" in settings.arms:
        yield _test(
            "orders of passages against the retriever's", settings, settings.reorder_samples, _ORDERS, 1, is_score=False
        )


def _test(
    name: str, settings: PowerSettings, num_samples: int, family_size: int, prompts: int, *, is_score: bool = True
) -> PlannedComparison:
    is_mcnemar = is_score and prompts == 1
    alpha, effect = 1 - settings.confidence, (settings.detectable_effect or 0) / 100
    smallest = smallest_p(num_samples, family_size, is_mcnemar=is_mcnemar)
    sizes = {"prompts": prompts, "family_size": family_size}
    return PlannedComparison(
        name=name,
        family_size=family_size,
        num_samples=num_samples,
        smallest_p=smallest,
        can_show=smallest < alpha,
        fewest_samples=fewest_for_a_test(family_size, alpha, is_mcnemar=is_mcnemar),
        samples_for_effect=samples_to_find(effect, confidence=settings.confidence, **sizes),
        detectable=detectable(num_samples, confidence=settings.confidence, **sizes),
    )


def _margin(settings: PowerSettings, num_samples: int) -> PlannedComparison:
    margin, best = settings.non_inferiority_margin, lower_bound_of_equal(num_samples, settings.confidence)
    return PlannedComparison(
        name=f"no loss of {100 * margin:g} points of score at the base's window",
        family_size=1,
        num_samples=num_samples,
        smallest_p=None,
        best_low=best,
        can_show=best > -margin,
        fewest_samples=fewest_for_the_margin(margin, settings.confidence),
        samples_for_effect=None,
        detectable=None,
    )
