"""The mean under each order of passages, with its interval over questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from data_schemas.reorder import ReorderDecision
from data_schemas.report_sections import OrderMean
from tasks.evaluate.statistics.estimates import mean_with_t_interval, wilson_bounds


def order_means(samples: pa.Table, decision: ReorderDecision) -> Iterator[OrderMean]:
    """Of REORDER_SAMPLES rows, by order and length, then over all lengths.

    A question counts once: its rows at one length are averaged, then its lengths. The order of the rows does not matter.
    """
    asked: dict[str, dict[int, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    rows = samples.select(["strategy", "length", "sample", decision.measure])
    for row in rows.sort_by([(name, "ascending") for name in rows.column_names]).to_pylist():
        asked[row["strategy"]][row["sample"]][row["length"]].append(row[decision.measure])
    lengths = sorted(samples["length"].unique().to_pylist())
    for strategy, of_question in asked.items():
        questions = [{length: float(np.mean(values)) for length, values in of.items()} for of in of_question.values()]
        yield _mean(strategy, None, [float(np.mean(list(of.values()))) for of in questions], decision)
        for length in lengths if len(lengths) > 1 else ():
            yield _mean(strategy, length, [of[length] for of in questions if length in of], decision)


def _mean(strategy: str, length: int | None, values: list[float], decision: ReorderDecision) -> OrderMean:
    """Wilson's interval for scores, Student's t for log-probabilities; over questions."""
    if decision.measure == "score":
        mean = float(np.mean(values))
        low, high = wilson_bounds(mean, len(values), decision.confidence)
        return OrderMean(strategy=strategy, length=length, mean=mean, low=low, high=high)
    found = mean_with_t_interval(values, decision.confidence)
    return OrderMean(strategy=strategy, length=length, mean=found.value, low=found.low, high=found.high)
