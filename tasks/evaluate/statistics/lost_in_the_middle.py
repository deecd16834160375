"""Whether a model recalls the ends of its context better than the middle (Liu et al. 2023, arXiv 2307.03172).

U-shape index: mean over both end depths minus mean over the depths between, in scores and in recall gains. Each sample
stands at every depth; under no effect of position its values could stand at any of its depths, which is what the test
permutes. (The signs of the samples' indices are not arbitrary then: near a score of 0 or 1 the index is skewed, as the
few depths at the ends weigh more than those between.) A positive index alone can come from one end, so both ends are given
too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.evaluate.statistics.estimates import Estimate, mean_with_t_interval
from tasks.evaluate.statistics.hypothesis_tests import depth_permutation_test, holm
from tasks.evaluate.statistics.perplexity_rows import Settings
from tasks.evaluate.statistics.scores import Sampled, bounded_mean
from tasks.evaluate.statistics.task_cells import TaskCells, TaskRows

MIN_DEPTHS = 3


def lost_in_the_middle(cells: TaskCells, settings: Settings) -> list[dict[str, Any]]:
    """One row for each arm, task and length with at least three depths; p-values also corrected over an arm's rows (Holm).

    `score` and `gain` hold {index, low, high, p_value, p_holm, first_minus_middle, last_minus_middle}; `gain` is null where
    prompts have no control. The curve itself is in the report's `tasks`.
    """
    rows = []
    for key, cell in cells.items():
        if len(cell.depths) >= MIN_DEPTHS and (matrix := _by_depth(cell, cell.score)) is not None:
            gains = _by_depth(cell, cell.gain)
            row = key._asdict() | {"num_samples": len(matrix), "depths": cell.depths}
            row["score"] = _measure(matrix, settings, is_score=True)
            row["gain"] = None if gains is None or np.isnan(gains).any() else _measure(gains, settings, is_score=False)
            rows.append(row)
    for measure in ("score", "gain"):
        for arm in dict.fromkeys(row["arm"] for row in rows):
            family = [row[measure] for row in rows if row["arm"] == arm and row[measure] is not None]
            for entry, adjusted in zip(family, holm([entry["p_value"] for entry in family]), strict=True):
                entry["p_holm"] = adjusted
    return rows


def _by_depth(cell: TaskRows, values: np.ndarray) -> np.ndarray | None:
    """[samples, depths], rows being ordered by sample and depth; None where a sample lacks a depth."""
    num_samples, num_depths = cell.num_samples, len(cell.depths)
    if len(values) != num_samples * num_depths:
        return None
    return values.reshape(num_samples, num_depths)


def u_shape_indices(matrix: np.ndarray) -> np.ndarray:
    """Index of each sample, [samples], from [samples, depths] with depths ascending."""
    indices: np.ndarray = (matrix[:, 0] + matrix[:, -1]) / 2 - matrix[:, 1:-1].mean(axis=1)
    return indices


def _measure(matrix: np.ndarray, settings: Settings, *, is_score: bool) -> dict[str, Any]:
    indices, middle = u_shape_indices(matrix), matrix[:, 1:-1].mean()
    estimate = _interval(indices, settings, is_score=is_score)
    return {
        "index": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "p_value": depth_permutation_test(matrix, settings["seed"]),
        "first_minus_middle": float(matrix[:, 0].mean() - middle),
        "last_minus_middle": float(matrix[:, -1].mean() - middle),
    }


def _interval(indices: np.ndarray, settings: Settings, *, is_score: bool) -> Estimate:
    if not is_score:
        return mean_with_t_interval(indices, settings["confidence"])
    samples = Sampled(indices, np.arange(len(indices)))
    return bounded_mean(samples, confidence=settings["confidence"])
