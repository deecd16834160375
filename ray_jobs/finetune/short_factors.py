"""Finds longrope's list for short prompts after training (`training.find_short_factors`), on training documents.

The lists that are tried, and what decides: `tasks.rope_search.short_factors`. It costs 11 forward passes of the original length for
each of `rope_search.samples`, and two for each of `rope_search.deciding_samples`. A killed run measures only what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_schemas.absolute_paths import absolute_paths
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from data_schemas.progress import ProgressCallback, message
from data_schemas.short_factors import SHORT_FACTORS_NAME, ShortFactors
from data_schemas.storage import Artifact, Storage
from ray_jobs.actors import measuring_workers
from ray_jobs.search_rope.measuring import SAMPLES, MeasureCandidate, Unit, forget
from ray_jobs.shared_storage import refuse_unshared
from tasks.evaluate.heldout import HeldOutDocument
from tasks.model.base_model import load_tokenizer
from tasks.model.extended import ADAPTER_DIR
from tasks.model.rope_plan import RopePlan
from tasks.rope_search.samples import SearchSample, write_samples
from tasks.rope_search.short_factors import SHARES, TRAINED, best_share, decided, list_between, most_passes, short_sample
from tasks.rope_search.sides import two_sides
from tasks.work import Workers

_REMEDY = "lower ray.num_workers"


@dataclass(frozen=True)
class ShortSamples:
    """Texts that choose a list, and others that decide: of other works, if `of_works`."""

    choosing: tuple[SearchSample, ...]
    deciding: tuple[SearchSample, ...]
    of_works: bool


def short_samples(params: PipelineParams, plan: RopePlan, storage: Storage, shards: Artifact) -> ShortSamples | None:
    """The texts to measure; None where nothing is to be found. To be called before training, so that what is missing is said before it.

    Raises:
        UserError: the documents that the shards were made of are gone, or too few are as long as a short prompt may be.
    """
    if not (params.training.find_short_factors and plan.has_short_rotation):
        return None
    digest = shards.manifest.parents["documents"]
    documents = storage.find("documents", digest)
    if documents is None:
        raise UserError(
            f"training.find_short_factors measures training documents, and those of the shards (documents/{digest}) are no longer in the "
            "storage: run prepare again, or set it to false."
        )
    counts = params.rope_search.samples, params.rope_search.deciding_samples
    remedy = "add longer documents, or set training.find_short_factors to false"
    sides = two_sides(
        documents.path, load_tokenizer(params.model), plan.short_length, counts, "a list for short prompts", remedy
    )

    def texts(side: Sequence[HeldOutDocument]) -> tuple[SearchSample, ...]:
        return tuple(short_sample(document, plan.short_length, sides.cluster_of[document.doc_id]) for document in side)

    choosing, deciding = sides.choosing[: counts[0]], sides.deciding[: counts[1]]
    return ShortSamples(texts(choosing), texts(deciding), sides.of_works)


def find_short_factors(
    params: PipelineParams,
    plan: RopePlan,
    samples: ShortSamples,
    directory: Path,
    storage: Storage,
    key: str,
    progress: ProgressCallback,
) -> ShortFactors:
    """What was found for short prompts, as it is written into `directory`.

    `directory` holds the trained adapter. `key` names the measurements, so that a killed run finds them again.
    """
    total = most_passes(len(samples.choosing), len(samples.deciding))
    progress(message(f"finetune: measuring lists for short prompts, at most {total} passes of {plan.short_length:,} tokens"))
    try:
        with measuring_workers(params.ray, _REMEDY) as workers, storage.parts(key, workers.on_other_machines) as log:
            if workers.on_other_machines:
                refuse_unshared(params, storage, parts_only=False)
            found = _measured(params, plan, samples, directory / ADAPTER_DIR, workers, log)
    finally:
        forget()
    progress(message(f"finetune: {found.verdict}"))
    (directory / SHORT_FACTORS_NAME).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return found


def _measured(
    params: PipelineParams, plan: RopePlan, samples: ShortSamples, adapter: Path, workers: Workers, log: Parts
) -> ShortFactors:
    every = [*samples.choosing, *samples.deciding]
    if not log.has(SAMPLES):
        with log.writing(SAMPLES) as path:
            write_samples(every, path)
    measure = MeasureCandidate(
        model_json=absolute_paths(params).model.model_dump_json(),
        use_gpu=params.ray.use_gpu,
        theta=plan.rope_theta,
        num_pairs=plan.rotary_dim // 2,
        num_threads=max(1, int(params.ray.cpus_per_worker)),
        log=log,
        adapter=str(adapter),
    )

    def losses(share: float, first: int, stop: int, why: str) -> Sequence[float]:
        units = [Unit(list_between(plan, share), number, why) for number in range(first, stop)]
        return [record["text"] for record in workers.map(measure, units)]

    middle = len(samples.choosing)
    by_share = {share: losses(share, 0, middle, f"share {share:g}") for share in SHARES}
    best = best_share(by_share)
    trained = losses(TRAINED, middle, len(every), "decision")
    found = trained if best == TRAINED else losses(best, middle, len(every), "decision")
    clusters = [sample.cluster for sample in samples.deciding]
    return decided(plan, by_share, found, trained, clusters, params.rope_search.confidence, samples.of_works)
