"""TASK_SAMPLES rows by arm, task and context length, checked to be the same prompts for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tasks.evaluate.statistics.sampled import Sampled


class TaskKey(NamedTuple):
    """A model, task and context length."""

    arm: str
    task: str
    length: int


@dataclass(frozen=True)
class TaskRows:
    """The prompts of a cell, ordered by sample and depth; every array is [prompts].

    `depth` and `gain` are NaN where the task has no depth or no control.
    """

    sample: np.ndarray
    depth: np.ndarray
    score: np.ndarray
    gain: np.ndarray
    prompt_hash: np.ndarray

    @property
    def depths(self) -> list[float]:
        """The depths measured, ascending; empty for a task without."""
        return [float(d) for d in np.unique(self.depth[~np.isnan(self.depth)])]

    @property
    def num_samples(self) -> int:
        """Independent samples, each counted once for all its depths."""
        return len(np.unique(self.sample))

    def at(self, depth: float | None) -> TaskRows:
        """The prompts with the gold at `depth`; None: those without a depth."""
        kept = np.isnan(self.depth) if depth is None else self.depth == depth
        return TaskRows(*(column[kept] for column in (self.sample, self.depth, self.score, self.gain, self.prompt_hash)))

    @property
    def scores(self) -> Sampled:
        """Scores in [0, 1]."""
        return Sampled(self.score, self.sample)

    @property
    def gains(self) -> Sampled:
        """Recall gains in nats."""
        return Sampled(self.gain, self.sample)


TaskCells = dict[TaskKey, TaskRows]


def task_cells(table: pa.Table, arms: Sequence[str], tasks: Sequence[str]) -> TaskCells:
    """The rows by (arm, task, length), in the order of `arms` and `tasks` and by length.

    Raises:
        ValueError: a prompt occurs twice, or two arms were given different prompts.
    """
    names = ("arm", "task", "length", "depth", "sample", "score", "gain", "prompt_hash")
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in names}
    depth, gain = columns["depth"].astype(np.float64), columns["gain"].astype(np.float64)
    rows = np.lexsort((depth, columns["sample"]))
    found: dict[TaskKey, list[int]] = {}
    for row in rows:
        key = TaskKey(str(columns["arm"][row]), str(columns["task"][row]), int(columns["length"][row]))
        found.setdefault(key, []).append(row)
    ordered = sorted(found, key=lambda key: (arms.index(key.arm), tasks.index(key.task), key.length))
    cells = {
        key: TaskRows(
            columns["sample"][found[key]].astype(np.int64),
            depth[found[key]],
            columns["score"][found[key]].astype(np.float64),
            gain[found[key]],
            columns["prompt_hash"][found[key]].astype(str),
        )
        for key in ordered
    }
    _refuse_other_prompts(cells)
    return cells


def _refuse_other_prompts(cells: TaskCells) -> None:
    first: dict[tuple[str, int], TaskRows] = {}
    for key, rows in cells.items():
        if len(set(zip(rows.sample, np.nan_to_num(rows.depth, nan=-1), strict=True))) < len(rows.sample):
            raise ValueError(f"the task samples hold a prompt of {key.task} at {key.length} tokens twice for {key.arm}")
        given = first.setdefault((key.task, key.length), rows)
        if not np.array_equal(given.prompt_hash, rows.prompt_hash) or not np.array_equal(given.sample, rows.sample):
            raise ValueError(f"the task samples of {key.task} at {key.length} tokens are not the same prompts for every arm")
