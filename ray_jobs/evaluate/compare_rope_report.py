"""The comparison of RoPE methods, computed from its per-sample rows alone; `data_schemas.rope_comparison` describes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from data_schemas.report_sections import PerplexityRow
from data_schemas.rope_comparison import (
    ComparedMethod,
    ContextGain,
    PerplexityRatio,
    RopeComparison,
    RopeComparisonSettings,
)
from tasks.evaluate.statistics.estimates import Estimate
from tasks.evaluate.statistics.perplexity_rows import Cell, perplexity_cells, perplexity_row, ratio_of

BASE = "base"


def build_comparison(
    samples: pa.Table, settings: RopeComparisonSettings, plans: dict[str, dict[str, str]], refused: dict[str, str]
) -> RopeComparison:
    """The comparison of PERPLEXITY_SAMPLES rows whose arm is a method or "base".

    Args:
        plans: by method, the rows of its RoPE plan.
        refused: by method that does not apply, the reason.
    """
    measured = list(dict.fromkeys(samples["arm"].to_pylist()))
    samples_of = perplexity_cells(samples, measured)
    cells = {cell: perplexity_row(cell, rows, settings) for cell, rows in samples_of.items()}
    window, target = settings.base_window, settings.target_length

    def at_target(method: str) -> float:
        return cells[Cell(method, target)].perplexity

    scaled = [method for method in measured if method != BASE]
    best = min(scaled, key=at_target)
    adjusted = 1 - (1 - settings.confidence) / max(1, len(measured) - 1)
    methods = []
    for method in sorted(measured, key=at_target):
        over_base = ratio_of(samples_of, Cell(method, window), Cell(BASE, window), settings)
        at_adjusted = settings.model_copy(update={"confidence": adjusted})
        against = ratio_of(samples_of, Cell(method, target), Cell(best, target), at_adjusted)
        methods.append(
            ComparedMethod(
                method=method,
                cells=tuple(cells[Cell(method, length)] for length in settings.lengths),
                at_window=_ratio(over_base),
                against_best=_ratio(against),
                verdict=_verdict(method, best, against),
                plan=plans.get(method, {}),
            )
        )
    report = RopeComparison(
        settings=settings.model_copy(update={"level_of_each_comparison": adjusted}),
        num_documents=samples_of[Cell(best, target)].num_rows,
        methods=tuple(methods),
        refused=refused,
        best=best,
        equally_good=tuple(m.method for m in methods if m.method in scaled and m.verdict == "not told apart"),
        context_gain=_context_gain(samples_of, settings),
        findings=(),
    )
    return report.model_copy(update={"findings": findings(report)})


def _verdict(method: str, best: str, ratio: Estimate) -> Literal["best", "better", "worse", "not told apart"]:
    if method == best:
        return "best"
    assert ratio.low is not None
    assert ratio.high is not None
    return "worse" if ratio.low > 1 else "better" if ratio.high < 1 else "not told apart"


def _context_gain(samples_of: dict[Cell, pa.Table], settings: RopeComparisonSettings) -> ContextGain | None:
    """How much the second half of its own window helps the unscaled base; None where no shorter length was measured."""
    window = settings.base_window
    shorter = [length for length in settings.lengths if length < window]
    if not shorter:
        return None
    ratio = ratio_of(samples_of, Cell(BASE, window), Cell(BASE, shorter[-1]), settings)
    return ContextGain(from_length=shorter[-1], to_length=window, ratio=ratio.value, low=ratio.low, high=ratio.high)


def findings(report: RopeComparison) -> tuple[str, ...]:
    """The conclusions, a sentence each: which is best, whether that is certain, what it costs, whether context helps."""
    settings, best = report.settings, report.best
    target, window = settings.target_length, settings.base_window
    entry = {m.method: m for m in report.methods}
    value = {name: method.cells[-1].perplexity for name, method in entry.items()}
    said = [f"{best} is best at {target} tokens without training: perplexity {value[best]:.2f}, unscaled {value[BASE]:.2f}."]
    if report.equally_good:
        named = ", ".join(f"{m} ({_interval(entry[m].against_best)} of it)" for m in report.equally_good)
        said.append(
            f"Not told apart from {best} on these {report.num_documents} documents, since the paired interval of the ratio "
            f"contains 1: {named}. Measure more documents, or choose the one that your server supports."
        )
    elif len(report.methods) > 2:
        said.append("Every other method is worse by more than the paired interval of the difference.")
    if entry[BASE].verdict == "not told apart":
        said.append(f"Scaling is not told apart from none at {target} tokens: these documents do not show a need to extend.")
    elif entry[BASE].verdict == "better":
        said.append(
            f"The unscaled base is better than every method at {target} tokens: its window may be longer than it states."
        )
    cost = entry[best].at_window
    said.append(f"At the base's own window of {window} tokens, {best} has {_interval(cost)} of the unscaled base's perplexity.")
    if gain := report.context_gain:
        span = f"from {gain.from_length} to {gain.to_length} tokens of context"
        if gain.high is not None and gain.high < 1:
            said.append(f"The base uses context: {span} its perplexity falls to {_interval(gain)} of what it was.")
        else:
            said.append(
                f"The base shows no gain {span} ({_interval(gain)} of the perplexity). Where a document's parts are this "
                "independent, chunks with a reorder config serve better than a longer window."
            )
    return tuple(said)


def cells_by_arm(report: RopeComparison) -> Sequence[PerplexityRow]:
    """The methods' perplexities, named like the arms of an evaluation, as the figure of perplexity expects them."""
    return [
        cell.model_copy(update={"arm": BASE if entry.method == BASE else f"base_{entry.method}"})
        for entry in report.methods
        for cell in entry.cells
    ]


def comparison_table(report: RopeComparison) -> tuple[list[str], list[list[str]]]:
    """One row a method, best first: perplexity by context length (an interval at the target), cost at the window, ratio to the best."""
    settings = report.settings
    columns = ["method", *map(str, settings.lengths), f"over base at {settings.base_window}", "over best at target", ""]
    rows = []
    for entry in report.methods:
        cells = [f"{c.perplexity:.2f}" for c in entry.cells]
        last = entry.cells[-1]
        cells[-1] += f" [{last.low:.1f}, {last.high:.1f}]"
        name = "none" if entry.method == BASE else entry.method
        window = "" if entry.method == BASE else _interval(entry.at_window)
        against = "" if entry.verdict == "best" else _interval(entry.against_best)
        rows.append([name, *cells, window, against, entry.verdict])
    return columns, rows


def _interval(ratio: PerplexityRatio | ContextGain) -> str:
    return f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _ratio(estimate: Estimate) -> PerplexityRatio:
    return PerplexityRatio(ratio=estimate.value, low=estimate.low, high=estimate.high)
