"""The report's section on the order of retrieved passages, and its table."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from data_schemas.reorder import ReorderDecision, StrategyResult
from data_schemas.report import EvaluationSettings, Report
from data_schemas.report_sections import Bound, RecallRow, ReorderSection, published_curve
from tasks.evaluate.report import numbers
from tasks.evaluate.report.section import Table
from tasks.evaluate.statistics.order_means import order_means
from tasks.evaluate.statistics.reorder_choice import choose_default
from tasks.reorder.recall_curve import why_not_calibrated


def reorder_section(
    samples: pa.Table, recall_by_position: tuple[RecallRow, ...], settings: EvaluationSettings
) -> ReorderSection:
    """The section of REORDER_SAMPLES rows; `settings` says why there are no rows."""
    if not len(samples):
        reason = settings.reorder_left_out or "it was not asked for"
        return ReorderSection(reason=reason, arm=None, num_questions=0, num_passages={}, calibrated="", decision=None)
    decision = choose_default(samples, confidence=settings.confidence, seed=settings.seed)
    lengths = sorted(samples["length"].unique().to_pylist())
    rows = samples.select(["length", "order"]).to_pylist()
    counts = {length: [len(row["order"]) for row in rows if row["length"] == length] for length in lengths}
    has_calibrated = "calibrated" in samples["strategy"].unique().to_pylist()
    return ReorderSection(
        reason=None,
        arm=samples["arm"][0].as_py(),
        num_questions=len(samples["sample"].unique()),
        num_passages={str(length): (min(of), max(of)) for length, of in counts.items()},
        calibrated="" if has_calibrated else why_not_calibrated(published_curve(recall_by_position)),
        decision=decision,
        means=tuple(order_means(samples, decision)),
    )


def reorder_table(report: Report) -> Table:
    """One row a strategy and length, with its differences to the order none and to random; `all` is the mean over lengths."""
    decision = report.reorder_decision
    if decision is None:
        return [], []
    found: dict[tuple[str, int | None, str], StrategyResult] = {(r.strategy, r.length, r.against): r for r in decision.table}
    means = _means(report.reorder, decision) if report.reorder else {}
    tested: Counter[tuple[str, bool]] = Counter((r.against, r.length is None) for r in decision.table if r.test != "reference")
    rows = []
    for strategy, length in sorted(means, key=lambda key: (key[1] or 0, _ORDER.index(key[0]))):
        to_none, to_random = (found.get((strategy, length, against)) for against in ("none", "random"))
        if to_none is not None and to_none.test == "reference":
            to_none = None
        rows.append(
            [
                f"{strategy}{' (chosen)' if strategy == decision.strategy else ''}",
                str(length or "all"),
                means[strategy, length],
                *(
                    _difference(result, decision, tested[against, length is None])
                    for against, result in (("none", to_none), ("random", to_random))
                ),
                _verdict(to_none, decision),
            ]
        )
    return ["order", "length", _MEASURES[decision.measure], "minus none", "minus random", "against none"], rows


_ORDER = ("none", "random", "important_first_last", "reverse_rank", "calibrated")
_MEASURES = {"score": "answered (%)", "logprob": "log-probability of the answer (nats)"}


def _means(section: ReorderSection, decision: ReorderDecision) -> dict[tuple[str, int | None], str]:
    """Mean of every order by length. Reports of older versions have no intervals of it; there the mean of `none` at one length
    follows from any difference to it."""
    if section.means:
        return {(m.strategy, m.length): _estimate(m.mean, m.low, m.high, decision) for m in section.means}
    means: dict[tuple[str, int | None], float] = {(r.strategy, r.length): r.mean for r in decision.table}
    for result in decision.table:
        means.setdefault((result.against, result.length), result.mean - result.difference)
    return {key: _estimate(mean, None, None, decision) for key, mean in means.items()}


def _estimate(value: float, low: Bound, high: Bound, decision: ReorderDecision, sign: str = "") -> str:
    scale, digits = (100, 0) if decision.measure == "score" else (1, 2)
    low, high = (None if bound is None else scale * bound for bound in (low, high))
    return numbers.with_interval(scale * value, low, high, digits, sign=sign)


def _difference(result: StrategyResult | None, decision: ReorderDecision, num_tests: int) -> str:
    if result is None:
        return ""
    text = _estimate(result.difference, result.low, result.high, decision, sign="+")
    return f"{text}, p {numbers.p_holm(result.p_holm, num_tests)}"


def _verdict(result: StrategyResult | None, decision: ReorderDecision) -> str:
    if result is None:
        return ""
    if result.p_holm >= 1 - decision.confidence:
        return "not distinguishable"
    return "better" if result.difference > 0 else "worse"
