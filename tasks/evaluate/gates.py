"""Whether the measured model is good enough to publish."""

from __future__ import annotations

from typing import Any

from data_schemas.params import PublishParams
from tasks.evaluate.report import find_comparison


def failed_gates(report: dict[str, Any], publish: PublishParams, base_window: int, target: int) -> list[str]:
    """One sentence with its figures for each gate that the report fails; empty when all hold or none is set.

    Both gates judge the unfavourable bound of the interval of a paired perplexity ratio. A gate whose lengths
    were not measured fails.
    """
    level = f"{report['settings']['confidence']:.0%}"
    failures = []
    if (loss := publish.max_short_context_loss) is not None:
        ratio = find_comparison(report, ("fine_tuned", base_window), ("base", base_window))
        if ratio is None:
            failures.append(_not_measured("max_short_context_loss", base_window))
        elif not ratio["high"] - 1 < loss:
            failures.append(
                f"publish.max_short_context_loss is {loss:.1%}, but at the base's window of {base_window} tokens "
                f"the fine-tuned model's perplexity differs from the base's by {ratio['ratio'] - 1:+.1%}, "
                f"{level} upper bound {ratio['high'] - 1:+.1%}."
            )
    if (gain := publish.min_long_context_gain) is not None:
        ratio = find_comparison(report, ("fine_tuned", target), ("base", target))
        if ratio is None:
            failures.append(_not_measured("min_long_context_gain", target))
        elif not 1 - ratio["high"] >= gain:
            failures.append(
                f"publish.min_long_context_gain is {gain:.1%}, but at the target of {target} tokens perplexity fell by "
                f"{1 - ratio['ratio']:.1%} against the base, {level} lower bound {1 - ratio['high']:.1%}."
            )
    return failures


def _not_measured(gate: str, length: int) -> str:
    return (
        f"publish.{gate} cannot be judged, because base and fine-tuned model were not both measured at {length} tokens: "
        "add it to evaluation.lengths and both to evaluation.arms."
    )
