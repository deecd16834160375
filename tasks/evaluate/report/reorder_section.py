"""The report's section on the order of retrieved passages, and its table for people.

{"reason": why it was not measured, or null, "arm", "num_questions", "num_passages": {length: [fewest, most]},
 "calibrated": why that strategy is not among the measured ones, or "", "decision": ReorderDecision, or null}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from data_schemas.reorder import ReorderDecision, StrategyResult
from tasks.evaluate.statistics.reorder_choice import choose_default
from tasks.reorder.config import served_curve
from tasks.reorder.recall_curve import why_not_calibrated

Table = tuple[list[str], list[list[str]]]


def reorder_section(
    samples: pa.Table, recall_by_position: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The section of REORDER_SAMPLES rows; `settings` gives confidence, seed, and why there are no rows."""
    if not len(samples):
        reason = settings.get("reorder_left_out") or "it was not asked for"
        return {"reason": reason, "arm": None, "num_questions": 0, "num_passages": {}, "calibrated": "", "decision": None}
    decision = choose_default(samples, confidence=settings["confidence"], seed=settings["seed"])
    lengths = sorted(samples["length"].unique().to_pylist())
    rows = samples.select(["length", "order"]).to_pylist()
    counts = {length: [len(row["order"]) for row in rows if row["length"] == length] for length in lengths}
    has_calibrated = "calibrated" in samples["strategy"].unique().to_pylist()
    return {
        "reason": None,
        "arm": samples["arm"][0].as_py(),
        "num_questions": len(samples["sample"].unique()),
        "num_passages": {str(length): [min(of), max(of)] for length, of in counts.items()},
        "calibrated": "" if has_calibrated else why_not_calibrated(served_curve(recall_by_position)),
        "decision": decision.model_dump(mode="json"),
    }


def published_decision(report: Mapping[str, Any]) -> ReorderDecision | None:
    """The decision in a report; None where there is none, as in reports of older versions."""
    decision = (report.get("reorder") or {}).get("decision")
    return None if decision is None else ReorderDecision.model_validate(decision)


def reorder_table(report: Mapping[str, Any]) -> Table:
    """One row a strategy and length, `all` being the mean over lengths, with its differences to the order none and to random."""
    decision = published_decision(report)
    if decision is None:
        return [], []
    found: dict[tuple[str, int | None, str], StrategyResult] = {(r.strategy, r.length, r.against): r for r in decision.table}
    means = _means(decision)
    rows = []
    for strategy, length in sorted(means, key=lambda key: (key[1] or 0, _ORDER.index(key[0]))):
        to_none, to_random = (found.get((strategy, length, against)) for against in ("none", "random"))
        if to_none is not None and to_none.test == "reference":
            to_none = None
        rows.append(
            [
                f"{strategy}{' (chosen)' if strategy == decision.strategy else ''}",
                str(length or "all"),
                _number(means[strategy, length], decision),
                *(_difference(result, decision) for result in (to_none, to_random)),
                _verdict(to_none, decision),
            ]
        )
    return ["order", "length", _MEASURES[decision.measure], "minus none", "minus random", "against none"], rows


_ORDER = ("none", "random", "important_first_last", "reverse_rank", "calibrated")
_MEASURES = {"score": "answered (%)", "logprob": "log-probability of the answer (nats)"}


def _means(decision: ReorderDecision) -> dict[tuple[str, int | None], float]:
    """Mean of every order by length; that of `none` at one length follows from any difference to it."""
    means: dict[tuple[str, int | None], float] = {(r.strategy, r.length): r.mean for r in decision.table}
    for result in decision.table:
        means.setdefault((result.against, result.length), result.mean - result.difference)
    return means


def _number(value: float, decision: ReorderDecision) -> str:
    return f"{100 * value:.0f}" if decision.measure == "score" else f"{value:.2f}"


def _difference(result: StrategyResult | None, decision: ReorderDecision) -> str:
    if result is None:
        return ""
    scale, digits = (100, 0) if decision.measure == "score" else (1, 2)
    text = f"{scale * result.difference:+.{digits}f}"
    if result.low is not None and result.high is not None:
        text += f" [{scale * result.low:+.{digits}f}, {scale * result.high:+.{digits}f}]"
    return f"{text}, p {result.p_holm:.2g}"


def _verdict(result: StrategyResult | None, decision: ReorderDecision) -> str:
    if result is None:
        return ""
    if result.p_holm >= 1 - decision.confidence:
        return "not distinguishable"
    return "better" if result.difference > 0 else "worse"
