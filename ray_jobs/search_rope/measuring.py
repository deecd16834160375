"""Measuring candidates on workers that hold the model, with a log that survives every kill.

A unit is one candidate on one sample. Its record is a file of the log, named by the digest of rotation and sample, which the worker
writes as soon as it is measured and nobody writes again. So after a kill of anything, nothing that was measured is measured again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.params import ModelParams
from data_schemas.parts import Parts
from data_schemas.rope_search import Evaluation
from ray_jobs.search_rope.swapping import Rotation, SwappingModel
from tasks.model.rope_frequencies import default_frequencies
from tasks.rope_search.samples import SearchSample, read_samples
from tasks.rope_search.space import Candidate

SAMPLES = "samples.npz"


@dataclass(frozen=True)
class Unit:
    """One candidate on the sample of this number."""

    candidate: Candidate
    sample: int
    purpose: str


@dataclass(frozen=True)
class MeasureCandidate:
    """Measures a unit, or finds its record. Small and picklable, so that it can be sent to workers.

    `model_json` holds ModelParams with absolute paths; `theta` and `num_pairs` are of the base's unscaled frequencies. Every worker
    computes with `num_threads` threads of torch, because another number changes the last bits of a sum. `adapter` is the folder of the
    adapter that is merged into the base first.
    """

    model_json: str
    use_gpu: bool
    theta: float
    num_pairs: int
    num_threads: int
    log: Parts
    adapter: str | None = None

    def __call__(self, unit: Unit) -> dict[str, Any]:
        sample = _samples(self.log)[unit.sample]
        name = record_name(unit.candidate, sample)
        if self.log.has(name):
            with self.log.reading(name) as path:
                found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        model = _model(self.model_json, self.use_gpu, self.adapter)
        started = time.perf_counter()
        scaled = default_frequencies(self.theta, 2 * self.num_pairs) / np.asarray(unit.candidate.factors)
        model.swap(Rotation(tuple(scaled.tolist()), unit.candidate.attention))
        with _threads(self.num_threads):
            answers, text = model.score(sample)
        record = Evaluation(
            key=name.removesuffix(".json"),
            purpose=unit.purpose,
            factors=unit.candidate.factors,
            attention_factor=unit.candidate.attention,
            sample=sample.digest,
            answers=answers,
            text=text,
            seconds=round(time.perf_counter() - started, 3),
        ).model_dump(mode="json")
        with self.log.writing(name) as path:
            path.write_text(json.dumps(record), encoding="utf-8")
        return record


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def record_name(candidate: Candidate, sample: SearchSample) -> str:
    """The name in the log of a candidate's record on a sample."""
    return f"{candidate.digest}-{sample.digest}.json"


@lru_cache(maxsize=1)
def _model(model_json: str, use_gpu: bool, adapter: str | None) -> SwappingModel:
    folder = Path(adapter) if adapter else None
    return SwappingModel(ModelParams.model_validate_json(model_json), use_gpu=use_gpu, adapter=folder)


@lru_cache(maxsize=1)
def _samples(log: Parts) -> Sequence[SearchSample]:
    with log.reading(SAMPLES) as path:
        return read_samples(path)


def forget() -> None:
    """Free the model that this process holds."""
    _model.cache_clear()
    _samples.cache_clear()
