"""The cost of an evaluation: windows, tokens and operations before the start, and the remaining time while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_schemas.params import ModelParams
from data_schemas.progress import EvaluationEstimate, ProgressCallback, SamplesMeasured
from ray_jobs.evaluate.arms import ArmModel, loaded_model
from ray_jobs.evaluate.measuring_units import Unit
from ray_jobs.finetune.planning.flops import ModelCost

_PROBE_TOKENS = 512
_PROBE_SECONDS = 0.5
_SECONDS_BETWEEN_REPORTS = 2.0


@dataclass(frozen=True)
class Cost:
    """The cost of some units, if every window is computed whole. Shared beginnings and what no target needs make it less."""

    num_samples: int
    num_windows: int
    num_tokens: int
    flops: float

    def estimate(self, seconds: float) -> EvaluationEstimate:
        """What is reported before the start; `seconds` is the most that it takes."""
        return EvaluationEstimate(
            num_samples=self.num_samples,
            num_windows=self.num_windows,
            num_tokens=self.num_tokens,
            flops=self.flops,
            seconds=seconds,
        )

    @classmethod
    def of(cls, units: Sequence[Unit], model: ModelCost) -> Cost:
        return cls(
            sum(unit.num_samples for unit in units),
            sum(len(unit.window_lengths) for unit in units),
            sum(sum(unit.window_lengths) for unit in units),
            sum(model.forward_flops(unit.window_lengths) for unit in units),
        )


def base_cost(model: ModelParams) -> ModelCost:
    """Sizes of the base's matrices, counted without loading its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from ray_jobs.finetune.planning.flops import cost_of
    from tasks.model.base_model import load_config
    from tasks.model.quiet import quiet_transformers

    config = load_config(model)
    with torch.device("meta"), quiet_transformers():
        return cost_of(AutoModelForCausalLM.from_config(config), config.get_text_config())


@dataclass(frozen=True)
class Probe:
    """On a worker: seconds of one forward pass over `num_tokens` tokens with the arm that will be measured first."""

    models: ArmModel
    num_tokens: int

    def __call__(self, arm: str) -> float:
        from ray_jobs.evaluate.scoring import Window, score_windows

        model = loaded_model(self.models, arm)
        ids = np.random.default_rng(0).integers(0, model.config.get_text_config().vocab_size, self.num_tokens)
        # every token is a target, so that nothing is left out that a unit may need
        window = Window(ids.astype(np.int32), self.num_tokens - 1)
        seconds: list[float] = []
        while len(seconds) < 2 or (sum(seconds) < _PROBE_SECONDS and len(seconds) < 20):
            started = time.perf_counter()
            list(score_windows(model, [window], batch_tokens=self.num_tokens))
            seconds.append(time.perf_counter() - started)
        return float(np.median(seconds[1:]))  # the first one warms up


def probe_tokens(units: Sequence[Unit]) -> int:
    """How many tokens a probe takes: as many as the shortest window, and few enough to be quick on a CPU."""
    return max(2, min(_PROBE_TOKENS, *(unit.length for unit in units)))


class Meter:
    """Counts finished units and reports, every few seconds, how many samples are done and how long the rest takes."""

    def __init__(self, units: Sequence[Unit], kept: set[int], model: ModelCost, progress: ProgressCallback) -> None:
        """`kept`: numbers of the units that an interrupted run finished, which take no time."""
        self._flops = {unit.number: model.forward_flops(unit.window_lengths) for unit in units}
        self._kept, self._progress = kept, progress
        self._total_samples = sum(unit.num_samples for unit in units)
        self._total_flops = sum(self._flops.values())
        self._to_do = sum(flops for number, flops in self._flops.items() if number not in kept)
        self._samples, self._done, self._done_now = 0, 0.0, 0.0
        self._started = self._last = time.monotonic()

    def finished(self, unit: Unit) -> None:
        flops = self._flops[unit.number]
        self._samples += unit.num_samples
        self._done += flops
        self._done_now += 0.0 if unit.number in self._kept else flops
        now = time.monotonic()
        is_last = self._samples == self._total_samples
        if now - self._last < _SECONDS_BETWEEN_REPORTS and not is_last:
            return
        self._last = now
        seconds = now - self._started
        left = seconds / self._done_now * (self._to_do - self._done_now) if self._done_now else None
        share = 1.0 if is_last else min(1.0, self._done / self._total_flops)
        self._progress(
            SamplesMeasured(
                num_done=self._samples, num_samples=self._total_samples, share=share, seconds=seconds, seconds_left=left
            )
        )
