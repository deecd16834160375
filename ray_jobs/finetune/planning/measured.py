"""MFU as measured on a device: the table that `python -m benchmarks.gpu_training throughput --json FILE` writes.

No GPU has been measured with Ropeway yet, so none is shipped; without a table `plan` assumes an MFU and says so.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.planning.flops import known_peak


@dataclass(frozen=True)
class MeasuredMfu:
    """Share of a device's peak that one case of the table reached."""

    device: str
    case: str  # model/length/variant
    tokens: int
    attention: str  # "s2" or "full"
    weights_bytes: float
    mfu: float
    peak_flops: float

    def describe(self) -> str:
        """For the plan."""
        return f"{self.mfu:.0%} of a peak of {self.peak_flops / 1e12:g} TFLOP/s, measured on {self.device} with {self.case}"


def read_measured(path: Path) -> list[MeasuredMfu]:
    """All cases of the table whose MFU is known. UserError for a file that is no such table or has none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        device, cases = str(record["machine"]["device"]), dict(record["cases"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--measured {path} is not a table of `python -m benchmarks.gpu_training throughput --json FILE` ({error})."
        ) from error
    peak, found = known_peak(device), []
    for name, case in cases.items():
        if peak is not None and case.get("mfu"):
            tokens, variant = int(name.split("/")[1]), name.split("/")[2]
            attention = "full" if variant.startswith("full") else "s2"
            found.append(MeasuredMfu(device, name, tokens, attention, float(case["weights_bytes"]), float(case["mfu"]), peak))
    if not found:
        raise UserError(
            f"--measured {path} has no MFU of {device}: measure there on a GPU whose peak is known, or give --tflops."
        )
    return found


def nearest(table: list[MeasuredMfu], training: TrainingParams, tokens: int, weights_bytes: float) -> MeasuredMfu:
    """The case with the same attention, if there is one, whose length and then whose size is closest by ratio."""
    alike = [case for case in table if case.attention == training.attention] or table

    def distance(case: MeasuredMfu) -> float:
        return abs(math.log(case.tokens / tokens)) + abs(math.log(case.weights_bytes / max(1.0, weights_bytes)))

    return min(alike, key=distance)
