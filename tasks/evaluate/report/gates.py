"""The gates: is the measured model good enough to serve?

It is compared with what would be served otherwise: with scaling only at the same length, and with the base at its own window. The
base beyond its window is broken, and any model is better.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, PublishParams
from data_schemas.report import Report
from data_schemas.report_sections import ComparisonRow
from tasks.evaluate.labels import percent
from tasks.evaluate.perplexity import evaluation_lengths
from tasks.evaluate.power.sample_size import chosen_samples
from tasks.evaluate.statistics.estimates import wilson_bounds


def failed_gates(report: Report, publish: PublishParams, base_window: int, target: int) -> list[str]:
    """One sentence with its figures for each gate that the report fails; empty when all hold or none is set.

    Every gate judges the unfavourable bound of an interval. A gate whose lengths or tasks were not measured fails.
    """
    level = percent(report.settings.confidence)
    checks = (
        _short_context_loss(report, publish.max_short_context_loss, base_window, level),
        *_long_context_gain(report, publish.min_long_context_gain, base_window, target, level),
        _effective_length(report, publish.min_effective_length, level),
        *(_task_score(report, task, score, target, level) for task, score in publish.min_task_scores.items()),
    )
    return [sentence for sentence in checks if sentence]


def refuse_impossible(params: PipelineParams, base_window: int) -> None:
    """UserError, before any work, for a gate that no model could pass with what these parameters measure."""
    for sentence in _impossible(params, base_window):
        raise UserError(sentence)


def _impossible(params: PipelineParams, base_window: int) -> Iterator[str]:
    publish, evaluation, target = params.publish, params.evaluation, params.model.target_length
    lengths = evaluation_lengths(
        evaluation.lengths, base_window=base_window, target_length=target, target_tokens=evaluation.target_tokens
    )
    if not {"base", "fine_tuned"} <= set(evaluation.arms):
        for gate in ("max_short_context_loss", "min_long_context_gain", "min_effective_length"):
            if getattr(publish, gate) is not None:
                yield f"publish.{gate} compares base and fine-tuned model: add both to evaluation.arms, or leave it out."
    if publish.min_long_context_gain is not None and "scaling_only" not in evaluation.arms:
        yield "publish.min_long_context_gain compares with scaling only: add scaling_only to evaluation.arms, or leave it out."
    judged_at = (
        ("max_short_context_loss", base_window),
        ("min_long_context_gain", base_window),
        ("min_long_context_gain", target),
    )
    for gate, length in judged_at:
        if getattr(publish, gate) is not None and length not in lengths:
            yield f"publish.{gate} is judged at {length} tokens: add that to evaluation.lengths, or leave it out."
    if publish.min_effective_length is not None:
        least = publish.min_effective_length
        if least > target:
            yield f"publish.min_effective_length is {least}, above model.target_length {target}: lower it."
        if base_window not in lengths:
            yield f"publish.min_effective_length is judged from the base's window on: add {base_window} to evaluation.lengths."
        if max(lengths) < least:
            yield f"publish.min_effective_length is {least}, but the longest of evaluation.lengths is {max(lengths)}: add {least}."
    for task, score in publish.min_task_scores.items():
        if task not in evaluation.tasks:
            yield (
                f"publish.min_task_scores names {task}, but evaluation.tasks are {', '.join(evaluation.tasks) or 'none'}: "
                "correct the name, or add the task."
            )
        if target not in (evaluation.task_lengths or lengths):
            yield f"publish.min_task_scores is judged at the target: add {target} to evaluation.task_lengths."
        num_samples = chosen_samples(evaluation)
        best, _ = wilson_bounds(1.0, num_samples, evaluation.confidence)
        if best < score:
            needed = _samples_needed(score, evaluation.confidence)
            yield (
                f"publish.min_task_scores of {task} is {score:g}, but even a model that is always right gets a lower bound of {best:.3f} "
                f"on {num_samples} samples: set evaluation.num_samples to at least {needed}, or lower the score."
            )


def _samples_needed(score: float, confidence: float) -> int:
    """The fewest samples, all right, whose lower bound reaches `score`."""
    return next(n for n in count(1) if wilson_bounds(1.0, n, confidence)[0] >= score)


def _short_context_loss(report: Report, loss: float | None, base_window: int, level: str) -> str:
    if loss is None:
        return ""
    ratio = report.comparison(("fine_tuned", base_window), ("base", base_window))
    if ratio is None:
        return _not_measured("max_short_context_loss", base_window)
    if ratio.high is None:
        return _without_interval("max_short_context_loss", ratio)
    if ratio.high - 1 < loss:
        return ""
    return (
        f"publish.max_short_context_loss is {loss:.1%}, but at the base's window of {base_window} tokens "
        f"the fine-tuned model's perplexity differs from the base's by {ratio.ratio - 1:+.1%}, "
        f"{level} upper bound {ratio.high - 1:+.1%}, {ratio.high - 1 - loss:.1%} too much."
    )


def _long_context_gain(report: Report, gain: float | None, base_window: int, target: int, level: str) -> Iterator[str]:
    if gain is None:
        return
    references = {
        ("scaling_only", target): "scaling only at the same length",
        ("base", base_window): f"the base at its window of {base_window} tokens",
    }
    for (arm, length), name in references.items():
        ratio = report.comparison(("fine_tuned", target), (arm, length))
        if ratio is None:
            yield (
                f"publish.min_long_context_gain cannot be judged, because {arm} at {length} tokens or the fine-tuned model at {target} "
                f"tokens was not measured: add these to evaluation.lengths and both to evaluation.arms."
            )
        elif ratio.high is None:
            yield _without_interval("min_long_context_gain", ratio)
        elif 1 - ratio.high < gain:
            yield (
                f"publish.min_long_context_gain is {gain:.1%}, but at the target of {target} tokens perplexity fell by "
                f"{1 - ratio.ratio:.1%} against {name}, {level} lower bound {1 - ratio.high:.1%}, "
                f"{gain - (1 - ratio.high):.1%} too little."
            )


def _effective_length(report: Report, least: int | None, level: str) -> str:
    if least is None:
        return ""
    section = report.effective_context_length
    found = section.within_margin.arms.get("fine_tuned")
    if found is None:
        window = report.settings.base_window
        return (
            f"publish.min_effective_length cannot be judged, because the base was not measured at its window of {window} tokens or the "
            f"fine-tuned model at no length from {window} on: add these lengths to evaluation.lengths and both to evaluation.arms."
        )
    if (found.lower or 0) >= least:
        return ""
    if found.longest_measured < least:
        return (
            f"publish.min_effective_length is {least} tokens, but the longest length measured is {found.longest_measured}: "
            f"add {least} to evaluation.lengths."
        )
    lower = f"{found.lower} tokens, {least - found.lower} too few" if found.lower else "below the base's window"
    value = f"{found.value} tokens" if found.value else "below the base's window"
    return (
        f"publish.min_effective_length is {least} tokens, but perplexity stays within {section.margin:.1%} of the base's at its window "
        f"up to {value} by the estimate, and by the {level} bound only up to {lower}."
    )


def _task_score(report: Report, task: str, least: float, target: int, level: str) -> str:
    row = report.task_mean("fine_tuned", task, target)
    if row is None:
        return (
            f"publish.min_task_scores of {task} cannot be judged, because the fine-tuned model was not asked at {target} tokens: "
            f"add {task} to evaluation.tasks, {target} to evaluation.task_lengths and fine_tuned to evaluation.arms."
        )
    lower = row.low or 0.0
    if lower >= least:
        return ""
    return (
        f"publish.min_task_scores of {task} is {least:.1%}, but at the target of {target} tokens the fine-tuned model scores "
        f"{row.accuracy:.1%}, {level} lower bound {lower:.1%}, {least - lower:.1%} too little ({row.num_samples} samples)."
    )


def _not_measured(gate: str, length: int) -> str:
    return (
        f"publish.{gate} cannot be judged, because base and fine-tuned model were not both measured at {length} tokens: "
        "add it to evaluation.lengths and both to evaluation.arms."
    )


def _without_interval(gate: str, ratio: ComparisonRow) -> str:
    return (
        f"publish.{gate} cannot be judged, because {ratio.name} was measured on {ratio.num_documents} document, which gives no "
        "interval: hold out more documents."
    )
