"""The evaluate stage: measure each arm, keep the per-sample rows, and compute report and figures from them.

    evaluations/<digest>/
        perplexity_samples.parquet  passkey_samples.parquet     one row a measurement
        report.json  perplexity.png  passkey.png                computed from those rows

A finished arm's rows are kept in work/evaluate/<digest>/ until the stage is done, so a killed run measures only what
was missing.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.manifest import hash_file, stage_digest
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate.arms import Workload, measure_arm
from tasks.evaluate.heldout import read_heldout, select_documents
from tasks.evaluate.passkey import Haystack, depth_grid, passkey_lengths, passkey_samples
from tasks.evaluate.perplexity import evaluation_lengths, target_documents
from tasks.evaluate.report import Report, build_report

CODE_VERSION = 1
KIND = "evaluations"
STAGE = "evaluate"

Progress = Callable[[str], None]


def run(
    params: PipelineParams, storage: Storage, documents: Artifact, checkpoint: Artifact | None, progress: Progress
) -> Artifact:
    """Measure base, scaling-only and fine-tuned model, or find the evaluation that an equal run left.

    Args:
        documents: what ingest left; the held-out split is read from it.
        checkpoint: what finetune left; None measures base and scaling only.

    Raises:
        UserError: documents too few or too short, lengths that do not fit, no arm to measure.
    """
    from ray_jobs.finetune.base_model import base_fingerprint

    arms = tuple(arm for arm in dict.fromkeys(params.evaluation.arms) if checkpoint or arm != "fine_tuned")
    if not arms:
        raise UserError("evaluation.arms names only fine_tuned and there is no checkpoint: finetune first or add base.")
    stage_params = {
        "evaluation": params.evaluation.model_dump(mode="json"),
        "target_length": params.model.target_length,
        "rope_method": params.model.rope_method,
        "use_gpu": params.ray.use_gpu,
    }
    parents = {"documents": documents.digest, "base": base_fingerprint(params.model)}
    if checkpoint:
        parents["checkpoint"] = checkpoint.digest
    if params.model.rope_factors_file:
        parents["rope_factors"] = _hash_factors(params.model.rope_factors_file)
    work = storage.root / "work" / STAGE / stage_digest(STAGE, stage_params, CODE_VERSION, parents)

    def make(directory: Path) -> dict[str, Any]:
        return _make(directory, work, params, arms, documents, checkpoint, progress)

    artifact = storage.build(KIND, stage=STAGE, params=stage_params, code_version=CODE_VERSION, parents=parents, make=make)
    shutil.rmtree(work, ignore_errors=True)
    return artifact


def load_report(evaluation: Artifact) -> Report:
    """The report of a finished evaluation."""
    report: Report = json.loads((evaluation.path / "report.json").read_text(encoding="utf-8"))
    return report


def _hash_factors(path: str) -> str:
    try:
        return hash_file(Path(path).expanduser())
    except OSError as error:
        raise UserError(f"model.rope_factors_file {path} cannot be read: {error.strerror}; give an existing file.") from error


def _make(
    directory: Path,
    work: Path,
    params: PipelineParams,
    arms: tuple[str, ...],
    documents: Artifact,
    checkpoint: Artifact | None,
    progress: Progress,
) -> dict[str, Any]:
    from ray_jobs.finetune.base_model import load_tokenizer
    from ray_jobs.finetune.extended import base_window
    from tasks.evaluate.plots import plot_passkey, plot_perplexity

    tokenizer = load_tokenizer(params.model)
    window = base_window(params.model)
    workload = prepare_workload(params, window, documents.path, tokenizer)
    progress(
        f"evaluate: {len(workload.documents)} held-out documents, lengths {', '.join(map(str, workload.all_lengths))}, "
        f"models {', '.join(arms)}"
    )
    tables = [_arm_tables(arm, work, params, checkpoint, workload, tokenizer, progress) for arm in arms]
    perplexity = pa.concat_tables([table for table, _ in tables])
    passkey = pa.concat_tables([table for _, table in tables])
    pq.write_table(perplexity, directory / "perplexity_samples.parquet")
    pq.write_table(passkey, directory / "passkey_samples.parquet")

    report = build_report(perplexity, passkey, report_settings(params, window, workload))
    (directory / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    plot_perplexity(report, directory / "perplexity.png")
    plot_passkey(report, directory / "passkey.png")
    return {
        "arms": list(arms),
        "num_documents": len(workload.documents),
        "perplexity": {f"{cell['arm']}@{cell['length']}": round(cell["perplexity"], 4) for cell in report["perplexity"]},
        "effective_context_length": report["effective_context_length"]["arms"],
    }


def refuse_unmeasurable(params: PipelineParams, documents: Artifact) -> None:
    """UserError, before any training, where lengths, passkeys or held-out documents allow no evaluation."""
    from ray_jobs.finetune.base_model import load_tokenizer
    from ray_jobs.finetune.extended import base_window

    prepare_workload(params, base_window(params.model), documents.path, load_tokenizer(params.model))


def prepare_workload(params: PipelineParams, base_window: int, documents: Path, tokenizer: Any) -> Workload:
    """Documents, lengths and prompts, a pure function of the arguments and so the same for every arm."""
    evaluation = params.evaluation
    lengths = evaluation_lengths(
        evaluation.lengths,
        base_window=base_window,
        target_length=params.model.target_length,
        target_tokens=evaluation.target_tokens,
    )
    grid_lengths = passkey_lengths(evaluation.passkey_lengths, lengths, tokenizer)
    chosen = select_documents(
        read_heldout(documents, min_bytes=max(lengths)),
        tokenizer,
        min_tokens=max(lengths),
        num_documents=evaluation.num_documents,
        haystack_tokens=2 * max(grid_lengths),
    )
    targets = target_documents(
        chosen, max_length=max(lengths), num_documents=evaluation.num_documents, num_targets=evaluation.target_tokens
    )
    haystack = Haystack.of(chosen)
    depths = depth_grid(evaluation.passkey_depths)
    passkeys = {
        length: tuple(
            passkey_samples(
                haystack,
                tokenizer,
                length=length,
                depths=depths,
                num_samples=evaluation.passkey_samples,
                seed=evaluation.seed,
            )
        )
        for length in grid_lengths
    }
    return Workload(tuple(targets), lengths, passkeys)


def report_settings(params: PipelineParams, base_window: int, workload: Workload) -> dict[str, Any]:
    """What a reader of the report must know, and what computing it again takes; no path, since reports are published."""
    return {
        **params.evaluation.model_dump(mode="json", exclude={"arms", "num_documents", "batch_tokens"}),
        "lengths": list(workload.lengths),
        "passkey_lengths": list(workload.passkeys),
        "base_window": base_window,
        "target_length": params.model.target_length,
        "rope_method": params.model.rope_method,
    }


def _arm_tables(
    arm: str,
    work: Path,
    params: PipelineParams,
    checkpoint: Artifact | None,
    workload: Workload,
    tokenizer: Any,
    progress: Progress,
) -> tuple[pa.Table, pa.Table]:
    """An arm's rows, from the file that an interrupted run left or by measuring."""
    import torch

    from ray_jobs.finetune.extended import load_arm

    kept = work / f"{arm}.perplexity.parquet", work / f"{arm}.passkey.parquet"
    if all(path.is_file() for path in kept):
        progress(f"evaluate {arm}: measured by an interrupted run, kept")
        return pq.read_table(kept[0]), pq.read_table(kept[1])
    progress(f"evaluate {arm}: loading the model")
    path = checkpoint.path if checkpoint and arm == "fine_tuned" else None
    model: Any = load_arm(params, arm, path)  # type: ignore[arg-type]
    use_gpu = params.ray.use_gpu
    if use_gpu and not torch.cuda.is_available():
        raise UserError("ray.use_gpu is set, but no GPU is seen here: evaluate on a machine with one, or set it to false.")
    model = model.to("cuda" if use_gpu else "cpu").eval()
    tables = measure_arm(model, arm, workload, tokenizer, batch_tokens=params.evaluation.batch_tokens, progress=progress)
    del model
    gc.collect()
    if use_gpu:
        torch.cuda.empty_cache()
    for table, file in zip(tables, kept, strict=True):
        _write_atomically(table, file)
    return tables


def _write_atomically(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with staged.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
