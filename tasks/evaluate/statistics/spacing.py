"""Score by the distance between the pieces of evidence that an answer needs, and by how many they are.

The finding behind it is LongPiBench's (Tian et al. 2024, arXiv 2410.14641): recall falls with the distance between two pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_schemas.report import EvaluationSettings
from data_schemas.report_sections import SpacingRow
from tasks.evaluate.statistics.sampled import Sampled
from tasks.evaluate.statistics.score_estimates import mean_gain, mean_score


class _Key(NamedTuple):
    arm: str
    task: str
    length: int
    num_evidence: int
    distance: float | None


def spacing_rows(table: pa.Table, arms: Sequence[str], settings: EvaluationSettings) -> tuple[SpacingRow, ...]:
    """One row for each arm, task, length, number of facts and distance, from TASK_SAMPLES rows.

    Only tasks with an answer that needs several facts have rows. Intervals are over samples.
    """
    return tuple(_rows(table, arms, settings))


def _rows(table: pa.Table, arms: Sequence[str], settings: EvaluationSettings) -> Iterator[SpacingRow]:
    names = ("arm", "task", "length", "num_evidence", "distance", "sample", "score", "gain")
    rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    several = {task for _, task, _, num_evidence, *_ in rows if num_evidence and num_evidence > 1}
    found: dict[_Key, list[tuple[int, float, float]]] = {}
    for arm, task, length, num_evidence, distance, sample, score, gain in rows:
        if task in several and num_evidence is not None:
            key = _Key(arm, task, length, num_evidence, distance)
            found.setdefault(key, []).append((sample, score, np.nan if gain is None else gain))
    order = sorted(
        found, key=lambda k: (arms.index(k.arm), k.task, k.length, k.num_evidence, -1 if k.distance is None else k.distance)
    )
    for key in order:
        samples, scores, gains = (np.array(column) for column in zip(*found[key], strict=True))
        score = mean_score([Sampled(scores, samples)], confidence=settings.confidence)
        gain = mean_gain([Sampled(gains, samples)], confidence=settings.confidence)
        yield SpacingRow(
            **key._asdict(),
            num_samples=len(np.unique(samples)),
            n=len(samples),
            accuracy=score.value,
            low=score.low,
            high=score.high,
            interval=score.interval,
            gain=gain.value if gain else None,
            gain_low=gain.low if gain else None,
            gain_high=gain.high if gain else None,
        )
