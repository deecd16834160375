"""Where a base's critical pair really is, measured without a search: for `ropeway compare-rope`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback, message
from ray_jobs.search_rope.search_stage import search_samples
from ray_jobs.search_rope.swapping import Rotation, SwappingModel
from tasks.model.base_model import load_config
from tasks.model.rope_frequencies import default_frequencies
from tasks.model.rope_plan import plan_rope
from tasks.rope_search.plans import bare_space
from tasks.rope_search.race import find_critical
from tasks.rope_search.scores import Measured
from tasks.rope_search.seeds import critical_theta
from tasks.rope_search.space import Candidate


def measured_critical_theta(params: PipelineParams, documents: Path, progress: ProgressCallback) -> float:
    """`rope_theta` of NTK at the critical pair, found on `rope_search.first_samples` samples of the training documents.

    UserError if the base is already scaled or has too few pairs, if no plan can take a `rope_theta`, or if fewer than four training
    documents are as long as the target: before anything is measured.
    """
    asked, config = params.model, load_config(params.model)
    space = bare_space(config, params)
    theta = critical_theta(space, space.theoretical_critical)  # any other would be taken or refused alike
    plan_rope(config, asked.target_length, "theta", theta=theta, serving=asked.serve_with, window=asked.window)
    samples = search_samples(params, documents, space)[: params.rope_search.first_samples]
    model = SwappingModel(params.model, use_gpu=params.ray.use_gpu)
    unscaled = default_frequencies(space.theta, 2 * space.num_pairs)

    def measure(candidates: list[Candidate]) -> list[Measured]:
        found = []
        for candidate in candidates:
            model.swap(Rotation(tuple((unscaled / np.asarray(candidate.factors)).tolist()), candidate.attention))
            answers, text = zip(*(model.score(sample) for sample in samples), strict=True)
            found.append(Measured(answers, text))
        return found

    means = find_critical(space, measure, params.rope_search.text_weight)
    pair = min(means, key=lambda tried: (means[tried], tried))
    progress(
        message(f"compare-rope: NTK is best with pair {pair} as the critical one (in theory {space.theoretical_critical})")
    )
    return critical_theta(space, pair)
