"""How many samples of the tasks fit the time that an evaluation may take."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from data_schemas.parts import Parts
from ray_jobs.evaluate.measuring_units import Unit
from ray_jobs.finetune.planning.flops import ModelCost

_NAME = "num_samples.json"


def fitting_samples(
    units: Sequence[Unit], tasks: Collection[str], num_samples: int, cost: ModelCost, flops_per_s: float, seconds: float
) -> int:
    """The largest number of samples up to `num_samples` whose estimate fits, at least 1. Only those of `tasks` can be fewer.

    Args:
        units: of all `num_samples` samples.
        flops_per_s: of all workers together. The estimate is an upper bound, as shared beginnings are counted each time.
    """
    of_tasks = sum(cost.forward_flops(unit.window_lengths) for unit in units if unit.kind == "task" and unit.name in tasks)
    rest = sum(cost.forward_flops(unit.window_lengths) for unit in units) - of_tasks
    if not of_tasks:
        return num_samples
    fitting = (seconds * flops_per_s - rest) / (of_tasks / num_samples)
    return max(1, min(num_samples, int(fitting)))


def kept_number(parts: Parts) -> int | None:
    """What an interrupted run chose, as the speed may be another now; None for a new run."""
    if not parts.has(_NAME):
        return None
    with parts.reading(_NAME) as path:
        return int(json.loads(path.read_text(encoding="utf-8")))


def keep_number(num_samples: int, parts: Parts) -> None:
    """Write it among the parts, before any prompt."""
    with parts.writing(_NAME) as path:
        path.write_text(json.dumps(num_samples), encoding="utf-8")
