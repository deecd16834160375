"""Samples and scores of a fixed base, and a whole search over a formula: over a model, the noise of a score could change a rank."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.params import ModelParams
from ray_jobs.search_rope.swapping import Rotation, SwappingModel
from tasks.evaluate.heldout import tokenize
from tasks.model.base_model import load_tokenizer
from tasks.model.rope_frequencies import default_frequencies
from tasks.rope_search.race import RaceSettings, run_race
from tasks.rope_search.samples import SampleRequest, make_samples
from tasks.rope_search.scores import Measured
from tasks.rope_search.seeds import CLOSED_FORMS, closed_form
from tasks.rope_search.space import Candidate, RopeSpace
from tests.golden.inputs import prose, write_base

SETTINGS = RaceSettings(evaluations=40, generation_size=6, first_samples=2, samples=4, finalists=2, text_weight=1.0, seed=0)


def output(folder: Path) -> Any:
    model = ModelParams(base=str(write_base(folder / "base", window=128)), target_length=512)
    tokenizer = load_tokenizer(model)
    documents = [tokenize(f"d{number}", prose(number, 60), tokenizer) for number in range(2)]
    request = SampleRequest(length=512, num_depths=2, text_tokens=32, seed=0)
    samples = make_samples(documents, request, tokenizer, purpose="search", count=3)
    swapping = SwappingModel(model, use_gpu=False)
    num_pairs = swapping.num_pairs
    scores = {}
    for method in CLOSED_FORMS:
        space = _space("compact", num_pairs, original=128, target=512)
        form = closed_form(space, method)
        inv_freq = default_frequencies(space.theta, 2 * num_pairs) / np.asarray(form.factors)
        swapping.swap(Rotation(tuple(inv_freq.tolist()), form.attention))
        scores[method] = [swapping.score(sample) for sample in samples]
    return {
        "samples": [sample.digest for sample in samples],
        "scores": scores,
        "searches": {kind: _searched(_space(kind, 16, original=512, target=4096)) for kind in ("compact", "full")},
    }


def _space(kind: Any, num_pairs: int, original: int, target: int) -> RopeSpace:
    return RopeSpace(
        kind=kind, theta=1e4, num_pairs=num_pairs, original_length=original, target_length=target, lower=1.0, upper=4.0,
        num_knots=4, attention=True,
    )  # fmt: skip


def _searched(space: RopeSpace) -> dict[str, Any]:
    best = np.minimum(12.0 ** (np.arange(space.num_pairs) / 9), 12)

    def nats(candidate: Candidate, sample: int) -> float:
        away = np.log(candidate.factors) - np.log(best)
        return 2 + 0.01 * sample + float(np.mean(away**2)) + 2 * abs(candidate.attention - 1.25) * (1 + 0.1 * math.sin(sample))

    def measure(candidates: Any, first: int, stop: int, why: str) -> list[Measured]:
        return [Measured(*2 * (tuple(nats(c, sample) for sample in range(first, stop)),)) for c in candidates]

    race = run_race(space, SETTINGS, measure, lambda *_: None)
    return {
        "critical": race.critical,
        "factors": list(race.best.candidate.factors),
        "attention": race.best.candidate.attention,
        "best by generation": list(race.best_by_generation),
    }
