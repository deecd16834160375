"""Which order of passages the extended model answers best with, compared with the order `none` and with a random order.

The rows come from multi-document retrieval. The statistics require this of the prompts:

- A sample is one question with its gold passage and its distractors, ranked once as a retriever would rank them. The gold
  passage's rank varies over samples as it does in use: mostly high, not always first. If it were always first, the test would
  only find the best place.
- Each sample is asked with the same passages under every strategy and under `random`, at every length it has. Only the order
  differs. `random` is one order or several, drawn from the sample's own seed; several rows are averaged.
- The same sample number at another length is the same question with more distractors. Samples are independent of each other.
- `score` is 1 where the answer is right, else 0 (or a share in between); `logprob` is the answer's log-probability in nats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from data_schemas.errors import UserError
from data_schemas.reorder import ReorderDecision, StrategyResult
from data_schemas.reorder_strategy import ReorderStrategy
from tasks.evaluate.statistics.estimates import Estimate, mean_with_t_interval
from tasks.evaluate.statistics.hypothesis_tests import holm, mcnemar_exact, sign_flip_test
from tasks.evaluate.statistics.paired_differences import agreeing, bounded_mean
from tasks.evaluate.statistics.sampled import Sampled
from tasks.reorder.candidates import RANDOM

Measure = Literal["score", "logprob"]
Reference = Literal["none", "random"]
Values = dict[str, dict[tuple[Any, int], float]]  # strategy -> (sample, length) -> mean of the measure

# This many samples must be answered under some order before scores are compared. If all eight were better under one order,
# McNemar's p would be 2 / 2^8 = 0.008, the first value below a fifth of 0.05.
FEWEST_ANSWERED = 8
_CANDIDATES: tuple[ReorderStrategy, ...] = ("important_first_last", "reverse_rank", "calibrated")
_KNOWN = (*get_args(ReorderStrategy), RANDOM)


@dataclass(frozen=True)
class _Comparison:
    """`differences`: each sample's mean difference, [samples]; `mean`: that of the first order."""

    strategy: str
    against: Reference
    length: int | None
    differences: np.ndarray
    is_binary: bool
    mean: float


def choose_default(
    rows: pa.Table | Iterable[Mapping[str, Any]],
    *,
    measure: Measure | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> ReorderDecision:
    """The strategy that a config should name by default, and the table that says why.

    The winner is the strategy with the best mean among those that beat `none` over all lengths (Holm's p below 1 - confidence).
    It need not beat the others among them. If no strategy beats `none`, the result is `important_first_last`, marked as not
    distinguishable; if that is worse than `none`, the result is `none`.

    Samples are the unit: a test is McNemar's exact one where each sample has one score of 0 or 1, else a sign-flip test of the
    samples' mean differences. Intervals are Tango's for scores and Student's t for log-probabilities, over samples.
    `measure` None means `score`, or `logprob` where fewer than eight samples are answered under any order, as with models too
    small to answer. Raises UserError for rows that do not pair.
    """
    table = rows.to_pylist() if isinstance(rows, pa.Table) else list(rows)
    chosen, values = _measured(table, measure)
    lengths = sorted({length for _, length in values["none"]})
    references: list[Reference] = ["none", "random"] if "random" in values else ["none"]
    results: list[StrategyResult] = []
    for against in references:
        pooled = [_compare(values, s, against, None, lengths) for s in _KNOWN if s in values and s != against]
        single = [_compare(values, c.strategy, against, n, [n]) for n in lengths for c in pooled] if len(lengths) > 1 else []
        for family in (pooled, single):
            results += _tested(family, chosen, confidence, seed)
    decision = _decide(results, 1 - confidence, "of the score" if chosen == "score" else "nats of the answer's log-probability")
    return ReorderDecision(measure=chosen, confidence=confidence, table=(_reference_row(values, lengths), *results), **decision)


def _measured(rows: list[Mapping[str, Any]], measure: Measure | None) -> tuple[Measure, Values]:
    """The measure to use and its values. UserError for rows that cannot be compared."""
    for number, row in enumerate(rows):
        if row["strategy"] not in _KNOWN:
            raise UserError(f"Row {number} has strategy {row['strategy']!r}: it must be one of {', '.join(_KNOWN)}.")
    if not any(row["strategy"] == "none" for row in rows):
        raise UserError("No row has strategy `none`, against which the others are compared: measure that order as well.")
    if measure is not None:
        return measure, _paired(rows, measure)
    scores = _paired(rows, "score")
    answered = {sample for of in scores.values() for (sample, _), score in of.items() if score > 0}
    if len(answered) < FEWEST_ANSWERED:
        return "logprob", _paired(rows, "logprob")
    return "score", scores


def _paired(rows: list[Mapping[str, Any]], measure: Measure) -> Values:
    collected: dict[str, dict[tuple[Any, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(rows):
        if row[measure] is None or not np.isfinite(row[measure]):
            raise UserError(f"Row {number} has no finite {measure}: measure sample {row['sample']} again.")
        collected[row["strategy"]][row["sample"], row["length"]].append(float(row[measure]))
    values = {name: {key: float(np.mean(repeats)) for key, repeats in of.items()} for name, of in collected.items()}
    for name, of in values.items():
        if unpaired := of.keys() ^ values["none"].keys():
            sample, length = min(unpaired, key=str)
            raise UserError(
                f"Sample {sample} at {length} tokens was not measured with both {name} and none: measure each sample with all orders."
            )
    return values


def _per_sample(values: Values, strategy: str, lengths: list[int]) -> dict[Any, list[float]]:
    samples: dict[Any, list[float]] = defaultdict(list)
    for (sample, length), value in sorted(values[strategy].items(), key=str):
        if length in lengths:
            samples[sample].append(value)
    return samples


def _compare(values: Values, strategy: str, against: Reference, length: int | None, lengths: list[int]) -> _Comparison:
    first, second = _per_sample(values, strategy, lengths), _per_sample(values, against, lengths)
    differences = np.array([np.mean(first[sample]) - np.mean(second[sample]) for sample in first])
    singles = [*first.values(), *second.values()]
    is_binary = all(len(of) == 1 and of[0] in (0.0, 1.0) for of in singles)
    mean = float(np.mean([np.mean(of) for of in first.values()]))
    return _Comparison(strategy, against, length, differences, is_binary, mean)


def _tested(family: list[_Comparison], measure: Measure, confidence: float, seed: int) -> list[StrategyResult]:
    p_values = [_p_value(comparison, seed) for comparison in family]
    intervals = [
        agreeing(_interval(comparison.differences, measure, confidence), p_value, confidence)
        for comparison, p_value in zip(family, p_values, strict=True)
    ]
    return [
        StrategyResult(
            strategy=comparison.strategy,
            against=comparison.against,
            length=comparison.length,
            num_samples=len(comparison.differences),
            mean=comparison.mean,
            difference=interval.value,
            low=interval.low,
            high=interval.high,
            test="mcnemar" if comparison.is_binary else "sign_flip",
            p_value=p_value,
            p_holm=adjusted,
        )
        for comparison, interval, p_value, adjusted in zip(family, intervals, p_values, holm(p_values), strict=True)
    ]


def _p_value(comparison: _Comparison, seed: int) -> float:
    if comparison.is_binary:
        return mcnemar_exact(int((comparison.differences > 0).sum()), int((comparison.differences < 0).sum()))
    return sign_flip_test(comparison.differences, seed)


def _interval(differences: np.ndarray, measure: Measure, confidence: float) -> Estimate:
    """Mean of [samples] differences; a single log-probability has no bounds."""
    if measure == "score":
        return bounded_mean(Sampled(differences, np.arange(len(differences))), confidence=confidence)
    return mean_with_t_interval(differences, confidence)


def _reference_row(values: Values, lengths: list[int]) -> StrategyResult:
    comparison = _compare(values, "none", "none", None, lengths)
    return StrategyResult(
        strategy="none", against="none", length=None, num_samples=len(comparison.differences), mean=comparison.mean,
        difference=0.0, low=0.0, high=0.0, test="reference", p_value=1.0, p_holm=1.0,
    )  # fmt: skip


def _decide(results: list[StrategyResult], alpha: float, unit: str) -> dict[str, Any]:
    pooled = {r.strategy: r for r in results if r.against == "none" and r.length is None}
    better = [pooled[s] for s in _CANDIDATES if s in pooled and pooled[s].difference > 0 and pooled[s].p_holm < alpha]
    if better:
        best = max(better, key=lambda result: result.difference)  # the first of equals
        reason = f"{best.strategy} beats the order none by {best.difference:.3g} {unit} (p = {best.p_holm:.2g} after Holm)."
        return {"strategy": best.strategy, "is_distinguishable": True, "reason": reason}
    usual = pooled.get("important_first_last")
    if usual is not None and usual.difference < 0 and usual.p_holm < alpha:
        reason = (
            f"important_first_last is worse than the order none by {-usual.difference:.3g} {unit} and no other order is better."
        )
        return {"strategy": "none", "is_distinguishable": True, "reason": reason}
    reason = "No order was better than the order none beyond chance, so important_first_last is not distinguishable."
    return {"strategy": "important_first_last", "is_distinguishable": False, "reason": reason}
