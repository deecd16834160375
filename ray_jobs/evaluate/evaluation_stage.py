"""The evaluate stage: measure every arm, keep the per-sample rows, and compute report and figures from them.

    evaluations/<digest>/
        *_samples.parquet  settings.json        what was measured; all else is computed from these (`tasks.evaluate.report.results`)
        report.json  report.md  *.png
        lm_eval.json                            where benchmarks of lm-evaluation-harness were asked for

Measuring is cut into units, which workers leave as files among the parts: a killed run measures only what was missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.manifest import hash_file, stage_digest
from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate import lm_eval
from ray_jobs.evaluate.actors import measuring_workers
from ray_jobs.evaluate.arms import ArmModel, Arms, choose_arms, forget_model
from ray_jobs.evaluate.cost import Cost, Meter, Probe, base_cost, estimate_line, forward_flops, probe_tokens
from ray_jobs.evaluate.measuring_units import MeasureUnit, Unit, plan_units, rows_name
from ray_jobs.evaluate.reordering import ARM, MeasureReorder, plan_reorder_units
from ray_jobs.evaluate.trained_on import NOT_CHECKED, refuse_trained_on
from ray_jobs.evaluate.workload import Workload, asks_qa, prepare_workload, write_workload
from ray_jobs.shared_storage import refuse_unshared
from tasks.evaluate.report.build import Report, recall_curve
from tasks.evaluate.sample_set import SCHEMAS, Samples
from tasks.reorder.candidates import compared_strategies
from tasks.reorder.config import served_curve
from tasks.work import UnitFunction, Workers, run_units

CODE_VERSION = 6
KIND = "evaluations"
STAGE = "evaluate"

Progress = Callable[[str], None]
Shares = Callable[[float], None]


def _inputs(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> dict[str, Any]:
    from tasks.model.base_model import base_fingerprint

    parents = {"documents": documents.digest, "base": base_fingerprint(params.model)} | _given_files(params)
    return {
        "stage": STAGE,
        "params": {
            "evaluation": params.evaluation.model_dump(mode="json", exclude={"qa_file"}),
            "target_length": params.model.target_length,
            "rope_method": params.model.rope_method,
            "use_gpu": params.ray.use_gpu,
        },
        "code_version": CODE_VERSION,
        "parents": parents | ({"checkpoint": checkpoint.digest} if checkpoint else {}),
    }


def find(params: PipelineParams, storage: Storage, documents: Artifact, checkpoint: Artifact | None) -> Artifact | None:
    """The evaluation that an equal run left, or None."""
    return storage.find(KIND, stage_digest(**_inputs(params, documents, checkpoint)))


def run(
    params: PipelineParams,
    storage: Storage,
    documents: Artifact,
    checkpoint: Artifact | None,
    progress: Progress,
    shares: Shares = lambda share: None,
) -> Artifact:
    """Measure all arms on the same documents and prompts, or find the evaluation that an equal run left.

    Args:
        documents: what ingest left; the held-out split is read from it.
        checkpoint: what finetune left; None measures the arms that need no training.
        shares: hears every few seconds which share of the work is done, from 0 to 1.

    Raises:
        UserError: documents too few or too short, or trained on; lengths that do not fit; no arm to measure; benchmarks that
            cannot be run here; workers that keep dying.
    """
    arms = choose_arms(params, checkpoint is not None)
    lm_eval.refuse_unavailable(params.evaluation, arms.names)
    inputs = _inputs(params, documents, checkpoint)
    parts_key = stage_digest(**inputs)

    def make(directory: Path) -> dict[str, Any]:
        run = _Evaluation(params, storage, arms, documents, checkpoint, progress, shares)
        with measuring_workers(params.ray) as workers, storage.parts(parts_key, workers.on_other_machines) as parts:
            if workers.on_other_machines:
                refuse_unshared(params, storage, parts_only=True)
            return run.write(directory, workers, parts)

    try:
        artifact = storage.build(KIND, make=make, **inputs)
    finally:
        forget_model()
    if not artifact.reused:
        storage.drop_parts(parts_key)
    return artifact


def load_report(evaluation: Artifact) -> Report:
    """The report of a finished evaluation."""
    report: Report = json.loads((evaluation.path / "report.json").read_text(encoding="utf-8"))
    return report


def refuse_unmeasurable(params: PipelineParams, storage: Storage, documents: Artifact, shards: Artifact) -> None:
    """UserError, before any training, where lengths, tasks, held-out documents or benchmarks allow no evaluation.

    Where the training was done before there is nothing to save: the evaluation itself refuses the same.
    """
    from ray_jobs.finetune import checkpoint_stage as finetune

    if finetune.find(params, storage, shards):
        return
    from tasks.model.base_model import load_tokenizer
    from tasks.model.extended import base_window

    lm_eval.refuse_unavailable(params.evaluation, choose_arms(params, has_checkpoint=True).names)
    prepare_workload(params, base_window(params.model), documents.path, load_tokenizer(params.model))


def report_settings(params: PipelineParams, base_window: int, workload: Workload, arms: Arms) -> dict[str, Any]:
    """What a reader of the report must know, and what computing it again takes; no path, since reports are published."""
    qa_file = params.evaluation.qa_file
    return {
        **params.evaluation.model_dump(mode="json", exclude={"num_documents", "batch_tokens", "rope_methods"}),
        "arms": list(arms.names),
        "arms_left_out": arms.left_out,
        "qa_file": Path(qa_file).name if qa_file else None,
        "lengths": list(workload.lengths),
        "task_lengths": workload.task_lengths,
        "reorder_left_out": workload.ranked.left_out,
        "base_window": base_window,
        "target_length": params.model.target_length,
        "rope_method": params.model.rope_method,
    }


def _given_files(params: PipelineParams) -> dict[str, str]:
    """Hashes of the files that the parameters name, as parents."""
    given = {
        "rope_factors": (params.model.rope_factors_file, "model.rope_factors_file"),
        "qa": (params.evaluation.qa_file if asks_qa(params) else None, "evaluation.qa_file"),
    }
    return {parent: _hash(path, field) for parent, (path, field) in given.items() if path}


def _hash(path: str, field: str) -> str:
    try:
        return hash_file(Path(path).expanduser())
    except OSError as error:
        raise UserError(f"{field} {path} cannot be read: {error.strerror}; give an existing file.") from error


class _Evaluation:
    """One making of the artifact."""

    def __init__(
        self,
        params: PipelineParams,
        storage: Storage,
        arms: Arms,
        documents: Artifact,
        checkpoint: Artifact | None,
        progress: Progress,
        shares: Shares,
    ) -> None:
        from tasks.model.base_model import load_tokenizer
        from tasks.model.extended import base_window

        self._params, self._arms, self._progress, self._shares = params, arms, progress, shares
        self._base_window = base_window(params.model)
        self._workload = prepare_workload(params, self._base_window, documents.path, load_tokenizer(params.model))
        self._trained_on = "no checkpoint"
        if checkpoint:
            self._trained_on = refuse_trained_on(self._workload.doc_ids, checkpoint, storage)
        self._models = ArmModel.of(params, storage, checkpoint.location if checkpoint else None)
        self._units = plan_units(self._workload, arms.names, params.evaluation.batch_tokens)
        self._reorder_units: list[Unit] = []
        if ARM in arms.names:
            self._reorder_units = plan_reorder_units(self._workload, params.evaluation.batch_tokens, len(self._units))

    def write(self, directory: Path, workers: Workers, parts: Parts) -> dict[str, Any]:
        """Measure, and fill `directory`; returns the summary."""
        from tasks.evaluate.report.results import SETTINGS_NAME, write_results

        self._tell_arms()
        write_workload(self._workload, parts)
        settings = report_settings(self._params, self._base_window, self._workload, self._arms)
        samples = self._measure(workers, parts, settings)
        samples.write(directory)
        settings["trained_on_check"] = self._trained_on
        if benchmarks := self._benchmarks(workers, parts):
            _write_json(directory / "lm_eval.json", benchmarks)
            settings["lm_eval"] = benchmarks
        _write_json(directory / SETTINGS_NAME, settings)
        report = write_results(directory, samples, settings)
        return {
            "arms": list(self._arms.names),
            "num_documents": len(self._workload.documents),
            "num_prompts": sum(len(prompts) for prompts in self._workload.prompts.values()),
            "perplexity": {f"{cell['arm']}@{cell['length']}": round(cell["perplexity"], 4) for cell in report["perplexity"]},
            "effective_context_length": report["effective_context_length"]["arms"],
            "reorder_strategy": decision["strategy"] if (decision := report["reorder"]["decision"]) else None,
        }

    def _tell_arms(self) -> None:
        tasks = f", tasks {', '.join(self._workload.task_lengths)}" if self._workload.prompts else ""
        self._progress(
            f"evaluate: {len(self._workload.documents)} held-out documents, "
            f"lengths {', '.join(map(str, self._workload.all_lengths))}, models {', '.join(self._arms.names)}{tasks}"
        )
        if why := self._workload.ranked.left_out:
            self._progress(f"evaluate: reorder strategies are not compared: {why}")
        for arm, why in self._arms.left_out.items():
            self._progress(f"evaluate: {arm} is left out: {why}")
        if self._trained_on.startswith(NOT_CHECKED):
            self._progress(f"evaluate: whether these documents were trained on is {self._trained_on}")

    def _measure(self, workers: Workers, parts: Parts, settings: dict[str, Any]) -> Samples:
        kept = {unit.number for unit in self._units if parts.has(f"measured-{unit.number:05d}.json")}
        kept |= {unit.number for i, unit in enumerate(self._reorder_units) if parts.has(f"reordered-{i:05d}.json")}
        all_units = [*self._units, *self._reorder_units]
        cost = base_cost(self._params.model)
        self._estimate(workers, [unit for unit in all_units if unit.number not in kept], cost)
        meter = Meter(all_units, kept, cost, self._progress, self._shares)
        batch_tokens = self._params.evaluation.batch_tokens
        job = MeasureUnit(self._models, batch_tokens, parts)
        samples = _run(job, self._units, workers, parts, "measured", meter)
        if not self._reorder_units:
            return samples
        curve = served_curve(recall_curve(samples, settings))
        strategies = compared_strategies(self._workload.ranked.questions, curve)
        reorder_job = MeasureReorder(self._models, batch_tokens, parts, strategies, curve)
        reordered = _run(reorder_job, self._reorder_units, workers, parts, "reordered", meter)
        return replace(samples, reorder=reordered.reorder)

    def _estimate(self, workers: Workers, units: Sequence[Unit], cost: Any) -> None:
        if not units:
            return
        probe = Probe(self._models, probe_tokens(units))
        (seconds,) = workers.map(probe, [units[0].arm])
        speed = forward_flops(cost, [probe.num_tokens]) / seconds * self._params.ray.num_workers
        of_units = Cost.of(units, cost)
        self._progress(estimate_line(of_units, of_units.flops / speed))

    def _benchmarks(self, workers: Workers, parts: Parts) -> dict[str, Any]:
        """lm-evaluation-harness's results by arm; empty where none are asked for."""
        evaluation = self._params.evaluation
        arms = lm_eval.measured_arms(self._arms.names)
        if not evaluation.lm_eval_tasks:
            return {}
        self._progress(f"evaluate: lm-evaluation-harness runs {', '.join(evaluation.lm_eval_tasks)} on {', '.join(arms)}")
        job = lm_eval.Benchmark(self._models, evaluation.lm_eval_tasks, evaluation.lm_eval_limit, evaluation.seed)
        return dict(zip(arms, run_units(workers, job, arms, parts, "lm_eval"), strict=True))


def _run(job: UnitFunction, units: Sequence[Unit], workers: Workers, parts: Parts, name: str, meter: Meter) -> Samples:
    """The rows that the units leave; those of an interrupted run are taken from its parts."""
    kinds: list[list[str]] = []
    for unit, of_unit in zip(units, run_units(workers, job, units, parts, name), strict=True):
        kinds.append(of_unit)
        meter.finished(unit)
    return _collected(units, kinds, parts)


def _collected(units: Sequence[Unit], kinds: Sequence[Sequence[str]], parts: Parts) -> Samples:
    """All units' rows, in the order of the units."""
    tables: dict[str, list[pa.Table]] = {kind: [schema.empty_table()] for kind, schema in SCHEMAS.items()}
    for unit, of_unit in zip(units, kinds, strict=True):
        for kind in of_unit:
            with parts.reading(rows_name(kind, unit.number)) as path:
                tables[kind].append(pq.read_table(path, schema=SCHEMAS[kind], memory_map=False))
    return Samples(**{kind: pa.concat_tables(of_kind).combine_chunks() for kind, of_kind in tables.items()})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
