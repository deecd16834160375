"""Which RoPE method suits a base: each is measured without training, before any GPU hour is spent.

    rope_comparisons/<digest>/
        rope_samples.parquet        PERPLEXITY_SAMPLES; `arm` is the method, or "base" for the unscaled model
        rope_comparison.json  rope_comparison.png               computed from those rows

The base's weights are loaded once for each method, with that method's configuration, and scored on the last tokens of held-out
documents.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.params import ModelParams, PipelineParams, RopeMethod
from data_schemas.progress import ProgressCallback, message
from data_schemas.report import record_json
from data_schemas.rope_comparison import RopeComparison, RopeComparisonSettings, read_rope_comparison
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate.evaluation_key import stated_theta
from tasks.model.base_model import base_fingerprint, load_base, load_config, load_tokenizer
from tasks.model.extended import rope_factors
from tasks.model.rope_plan import RopePlan, plan_rope

if TYPE_CHECKING:
    from ray_jobs.evaluate.workload import Workload

CODE_VERSION = 6
KIND = "rope_comparisons"
STAGE = "compare-rope"
BASE = "base"
CRITICAL = "ntk_critical"  # NTK at the measured critical pair, see `tasks.rope_search.seeds`


# What of `rope_search` decides the critical pair, or whether it is measured.
_CRITICAL_SETTINGS = {"space", "first_samples", "samples", "deciding_samples", "depths", "text_tokens", "text_weight", "seed"}


@dataclass(frozen=True)
class Candidates:
    """Plans by method, and for each method that does not apply the reason in a sentence."""

    plans: dict[str, RopePlan]
    refused: dict[str, str]


def candidates(model: ModelParams) -> Candidates:
    """Every method that can extend this base to the target, including the choice of `auto`. UserError where none can."""
    config, factors = load_config(model), rope_factors(model)
    plans: dict[str, RopePlan] = {}
    refused: dict[str, str] = {}
    for method in get_args(RopeMethod):
        fitting = factors if method in ("longrope", "auto") else None
        theta = model.rope_theta if method in ("theta", "auto") else None
        if method == "theta" and theta is None:
            continue  # nothing was asked for
        try:
            plan = plan_rope(
                config,
                model.target_length,
                method,
                factors=fitting,
                theta=theta,
                serving=model.serve_with,
                window=model.window,
            )
        except UserError as error:
            refused[method] = str(error)
            continue
        plans[plan.method] = plan
        refused.pop(plan.method, None)
    refused = {method: why for method, why in refused.items() if method != "auto" and method not in plans}
    if not plans:
        raise UserError(f"No RoPE method applies to this base: {next(iter(refused.values()))}")
    return Candidates(plans, refused)


def _with_critical(found: Candidates, params: PipelineParams, documents: Path, progress: ProgressCallback) -> Candidates:
    """`found`, and NTK at the base's measured critical pair, or why not."""
    from ray_jobs.search_rope.critical import measured_critical_theta

    model = params.model
    try:
        theta = measured_critical_theta(params, documents, progress)
        plan = plan_rope(
            load_config(model), model.target_length, "theta", theta=theta, serving=model.serve_with, window=model.window
        )
    except UserError as error:
        return Candidates(found.plans, found.refused | {CRITICAL: str(error)})
    return Candidates(found.plans | {CRITICAL: plan}, found.refused)


def compared_lengths(base_window: int, target_length: int, target_tokens: int) -> tuple[int, ...]:
    """Half the base's window, the window, then doubling up to the target. The first two show the base's own gain from context."""
    from tasks.evaluate.perplexity import evaluation_lengths

    lengths = evaluation_lengths(None, base_window=base_window, target_length=target_length, target_tokens=target_tokens)
    return tuple(sorted({*lengths, base_window}))


def identity(params: PipelineParams, documents_digest: str, num_documents: int) -> tuple[dict[str, Any], dict[str, str]]:
    """(parameters, parents) that a comparison depends on."""
    evaluation = params.evaluation
    settings = {
        "target_length": params.model.target_length,
        "target_tokens": evaluation.target_tokens,
        "num_documents": num_documents,
        "confidence": evaluation.confidence,
        "seed": evaluation.seed,
        "use_gpu": params.ray.use_gpu,
        "factors": rope_factors(params.model),
        "serve_with": list(params.model.serve_with),
        "critical": params.rope_search.model_dump(mode="json", include=_CRITICAL_SETTINGS),
    } | stated_theta(params.model)
    return settings, {"documents": documents_digest, "base": base_fingerprint(params.model)}


def run(
    params: PipelineParams, storage: Storage, documents: Artifact, num_documents: int, progress: ProgressCallback
) -> Artifact:
    """Measure every method on at most `num_documents` held-out documents, or find the comparison of an equal run.

    Raises:
        UserError: no method applies, or too few held-out documents are as long as the target.
    """
    settings, parents = identity(params, documents.digest, num_documents)

    def make(directory: Path) -> dict[str, Any]:
        return _make(directory, params, documents.path, num_documents, progress)

    return storage.build(KIND, stage=STAGE, params=settings, code_version=CODE_VERSION, parents=parents, make=make)


def load_comparison(artifact: Artifact) -> RopeComparison:
    """The report of a finished comparison. UserError where the file was changed."""
    return read_rope_comparison(artifact.path / "rope_comparison.json")


def _make(
    directory: Path, params: PipelineParams, documents: Path, num_documents: int, progress: ProgressCallback
) -> dict[str, Any]:
    from ray_jobs.evaluate.compare_rope_report import build_comparison, cells_by_arm
    from tasks.evaluate.plots.perplexity_plots import perplexity_plot

    found = _with_critical(candidates(params.model), params, documents, progress)
    window = next(iter(found.plans.values())).base_window
    tokenizer = load_tokenizer(params.model)
    workload = _workload(params, window, documents, tokenizer, num_documents)
    progress(
        message(
            f"compare-rope: {len(workload.documents)} held-out documents, lengths {', '.join(map(str, workload.lengths))}, "
            f"methods {', '.join(found.plans)}"
        )
    )
    samples = pa.concat_tables(
        [_measured(params, method, plan, workload, tokenizer, progress) for method, plan in {BASE: None, **found.plans}.items()]
    )
    pq.write_table(samples, directory / "rope_samples.parquet")
    settings = RopeComparisonSettings(
        base_window=window,
        target_length=params.model.target_length,
        lengths=workload.lengths,
        target_tokens=params.evaluation.target_tokens,
        confidence=params.evaluation.confidence,
        seed=params.evaluation.seed,
    )
    report = build_comparison(samples, settings, {m: dict(p.describe()) for m, p in found.plans.items()}, found.refused)
    (directory / "rope_comparison.json").write_text(record_json(report), encoding="utf-8")
    perplexity_plot(cells_by_arm(report), report.settings).save_png(directory / "rope_comparison.png")
    return {"best": report.best, "equally_good": list(report.equally_good), "num_documents": len(workload.documents)}


def _workload(params: PipelineParams, window: int, documents: Path, tokenizer: Any, num_documents: int) -> Workload:
    from ray_jobs.evaluate.workload import Workload
    from tasks.evaluate.heldout import read_heldout, select_documents
    from tasks.evaluate.perplexity import target_documents

    target, num_targets = params.model.target_length, params.evaluation.target_tokens
    lengths = compared_lengths(window, target, num_targets)
    chosen = select_documents(
        read_heldout(documents, min_bytes=target), tokenizer, min_tokens=target, num_documents=num_documents, haystack_tokens=0
    )
    targets = target_documents(chosen, max_length=target, num_documents=num_documents, num_targets=num_targets)
    return Workload(tuple(targets), lengths)


def _measured(
    params: PipelineParams, method: str, plan: RopePlan | None, workload: Workload, tokenizer: Any, progress: ProgressCallback
) -> pa.Table:
    """PERPLEXITY_SAMPLES rows of the base under one plan, or without one."""
    import torch

    from ray_jobs.evaluate.measuring_units import Unit, measure_arm

    if params.ray.use_gpu and not torch.cuda.is_available():
        raise UserError(
            "ray.use_gpu is set, but this machine has no visible GPU: compare on a machine with one, or set it to false."
        )
    config = load_config(params.model)
    if plan is not None:
        plan.apply(config)
    model: Any = load_base(params.model, config=config).eval()
    model = model.to("cuda" if params.ray.use_gpu else "cpu")
    batch_tokens = params.evaluation.batch_tokens
    total, done = len(workload.documents) * len(workload.lengths), 0

    def told(unit: Unit) -> None:
        nonlocal done
        done += unit.num_samples
        progress(message(f"compare-rope {method}: {done} of {total} windows, at {unit.length} tokens"))

    samples = measure_arm(model, method, workload, tokenizer, batch_tokens=batch_tokens, told=told)
    del model
    gc.collect()
    return samples.perplexity
