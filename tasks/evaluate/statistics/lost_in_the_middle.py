"""Whether a model recalls the ends of its context better than the middle (Liu et al. 2023, arXiv 2307.03172).

U-shape index: mean over both end depths minus mean over the depths between, in scores and in recall gains. Each sample is
asked at every depth. Without an effect of position, its values could occur at any of its depths, and the test permutes
them. (The signs of the samples' indices are not arbitrary then: near a score of 0 or 1 the index is skewed, as the
few depths at the ends weigh more than those between.) One end alone can make the index positive, so both ends are given too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_schemas.report import EvaluationSettings
from data_schemas.report_sections import MiddleRow, PositionIndex
from tasks.evaluate.statistics.estimates import Estimate, mean_with_t_interval
from tasks.evaluate.statistics.hypothesis_tests import depth_permutation_test, holm
from tasks.evaluate.statistics.paired_differences import agreeing, bounded_mean
from tasks.evaluate.statistics.sampled import Sampled
from tasks.evaluate.statistics.task_cells import TaskCells, TaskRows

MIN_DEPTHS = 3


def lost_in_the_middle(cells: TaskCells, settings: EvaluationSettings) -> tuple[MiddleRow, ...]:
    """One row for each arm, task and length with at least three depths; p-values also corrected over an arm's rows (Holm).

    `gain` is null where prompts have no control. The curve itself is in the report's `tasks`.
    """
    measured = [
        (key, cell, matrix, _gains(cell))
        for key, cell in cells.items()
        if len(cell.depths) >= MIN_DEPTHS and (matrix := _by_depth(cell, cell.score)) is not None
    ]
    arms = [key.arm for key, *_ in measured]
    scores = _indices(arms, [matrix for *_, matrix, _ in measured], settings, is_score=True)
    gains = _indices(arms, [matrix for *_, matrix in measured], settings, is_score=False)
    rows = []
    for (key, cell, matrix, _), score, gain in zip(measured, scores, gains, strict=True):
        assert score is not None
        rows.append(MiddleRow(**key._asdict(), num_samples=len(matrix), depths=tuple(cell.depths), score=score, gain=gain))
    return tuple(rows)


def _by_depth(cell: TaskRows, values: np.ndarray) -> np.ndarray | None:
    """[samples, depths], rows being ordered by sample and depth; None where a sample lacks a depth."""
    num_samples, num_depths = cell.num_samples, len(cell.depths)
    if len(values) != num_samples * num_depths:
        return None
    return values.reshape(num_samples, num_depths)


def _gains(cell: TaskRows) -> np.ndarray | None:
    """Recall gains, [samples, depths]; None where a prompt has no control."""
    gains = _by_depth(cell, cell.gain)
    return None if gains is None or np.isnan(gains).any() else gains


def u_shape_indices(matrix: np.ndarray) -> np.ndarray:
    """Index of each sample, [samples], from [samples, depths] with depths ascending."""
    indices: np.ndarray = (matrix[:, 0] + matrix[:, -1]) / 2 - matrix[:, 1:-1].mean(axis=1)
    return indices


def _indices(
    arms: Sequence[str], matrices: Sequence[np.ndarray | None], settings: EvaluationSettings, *, is_score: bool
) -> list[PositionIndex | None]:
    """The index of each matrix, its p-value corrected over those of the same arm."""
    p_values = [None if matrix is None else depth_permutation_test(matrix, settings.seed) for matrix in matrices]
    adjusted: dict[int, float] = {}
    for arm in dict.fromkeys(arms):
        family = {i: p for i, p in enumerate(p_values) if arms[i] == arm and p is not None}
        adjusted |= dict(zip(family, holm(list(family.values())), strict=True))
    return [
        None if matrix is None or p_value is None else _index(matrix, p_value, adjusted[i], settings, is_score=is_score)
        for i, (matrix, p_value) in enumerate(zip(matrices, p_values, strict=True))
    ]


def _index(matrix: np.ndarray, p_value: float, p_holm: float, settings: EvaluationSettings, *, is_score: bool) -> PositionIndex:
    middle = matrix[:, 1:-1].mean()
    estimate = agreeing(_interval(u_shape_indices(matrix), settings, is_score=is_score), p_value, settings.confidence)
    return PositionIndex(
        index=estimate.value,
        low=estimate.low,
        high=estimate.high,
        p_value=p_value,
        first_minus_middle=float(matrix[:, 0].mean() - middle),
        last_minus_middle=float(matrix[:, -1].mean() - middle),
        p_holm=p_holm,
    )


def _interval(indices: np.ndarray, settings: EvaluationSettings, *, is_score: bool) -> Estimate:
    if not is_score:
        return mean_with_t_interval(indices, settings.confidence)
    samples = Sampled(indices, np.arange(len(indices)))
    return bounded_mean(samples, confidence=settings.confidence)
