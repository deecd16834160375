"""The evaluate stage: measure every arm, keep the per-sample rows, and compute report and figures from them.

    evaluations/<digest>/
        *_samples.parquet  settings.json        what was measured; the rest is computed from these (`tasks.evaluate.report.result_files`)
        report.json  report.md  report.html  *.png
        lm_eval.json                            if benchmarks of lm-evaluation-harness were asked for

Measuring is cut into units. Workers write each unit's rows among the parts, so a killed run measures only what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.manifest import stage_digest
from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from data_schemas.progress import ProgressCallback, message
from data_schemas.report import BenchmarkResults, EvaluationSettings, Report, read_report, record_json
from data_schemas.report_sections import published_curve
from data_schemas.samples import QUANTISED_ARM
from data_schemas.storage import Artifact, Storage
from ray_jobs.actors import measuring_workers
from ray_jobs.evaluate import lm_eval
from ray_jobs.evaluate.arms import ArmModel, Arms, choose_arms, forget_model
from ray_jobs.evaluate.cost import Cost, Meter, Probe, base_cost, probe_tokens
from ray_jobs.evaluate.evaluation_key import KIND, inputs_of
from ray_jobs.evaluate.given_files import published_files
from ray_jobs.evaluate.key_tokens import FindKeyTokens, asks_longppl, write_key_spans
from ray_jobs.evaluate.measured_with import measured_with
from ray_jobs.evaluate.measuring_units import MeasureUnit, Unit, plan_units, rows_name
from ray_jobs.evaluate.reordering import ARM, MeasureReorder, plan_reorder_units
from ray_jobs.evaluate.seen_text import seen_in, seen_in_training
from ray_jobs.evaluate.time_budget import fitting_samples, keep_number, kept_number
from ray_jobs.evaluate.trained_on import NOT_CHECKED, refuse_trained_on
from ray_jobs.evaluate.workload import Workload, prepare_workload, write_workload
from ray_jobs.shared_storage import refuse_unshared
from tasks.evaluate.power.dip import dip_line
from tasks.evaluate.power.plan import planned_power
from tasks.evaluate.power.sentences import power_lines
from tasks.evaluate.report.build import recall_curve
from tasks.evaluate.report.result_files import REPORT_NAME, SETTINGS_NAME
from tasks.evaluate.sample_set import SCHEMAS, Samples
from tasks.reorder.candidates import compared_strategies
from tasks.work import UnitFunction, Workers, run_units


def determining(params: PipelineParams) -> dict[str, Any]:
    """The parameters that decide what the job `evaluate` makes, which trains first where that is missing."""
    from ray_jobs.finetune import checkpoint_stage

    return checkpoint_stage.determining(params) | {"evaluation": params.evaluation.recorded()}


def run(
    params: PipelineParams,
    storage: Storage,
    documents: Artifact,
    checkpoint: Artifact | None,
    progress: ProgressCallback,
) -> Artifact:
    """Measure all arms on the same documents and prompts, or find the evaluation of an equal run.

    Args:
        documents: ingest's artifact; its held-out split is measured.
        checkpoint: finetune's artifact; None measures the arms that need no training.

    Raises:
        UserError: documents are too few, too short or were trained on; lengths do not fit; there is no arm to measure; benchmarks
            cannot be run here; workers keep dying.
    """
    arms = choose_arms(params, checkpoint is not None)
    lm_eval.refuse_unavailable(params.evaluation, arms.names)
    inputs = inputs_of(params, documents, checkpoint)
    parts_key = stage_digest(**inputs)

    def make(directory: Path) -> dict[str, Any]:
        run = _Evaluation(params, storage, arms, documents, checkpoint, progress)
        with measuring_workers(params.ray) as workers, storage.parts(parts_key, workers.on_other_machines) as parts:
            if workers.on_other_machines:
                refuse_unshared(params, storage, parts_only=True)
            return run.write(directory, workers, parts)

    try:
        artifact = storage.build(KIND, make=make, **inputs)
    finally:
        forget_model()
    storage.drop_parts(parts_key, was_finished=artifact.reused)
    return artifact


def load_report(evaluation: Artifact) -> Report:
    """The report of a finished evaluation. UserError where the file was changed."""
    return read_report(evaluation.path / REPORT_NAME)


def refuse_unmeasurable(params: PipelineParams, storage: Storage, documents: Artifact, shards: Artifact) -> None:
    """UserError, before any training, if lengths, tasks, held-out documents or benchmarks make the evaluation impossible.

    If the training is already done, nothing is checked here: the evaluation itself refuses the same.
    """
    from ray_jobs.finetune import checkpoint_stage as finetune

    if finetune.find(params, storage, shards):
        return
    from tasks.model.base_model import load_tokenizer
    from tasks.model.extended import base_window

    lm_eval.refuse_unavailable(params.evaluation, choose_arms(params, has_checkpoint=True).names)
    left_out = seen_in(shards, params.evaluation.max_seen_share).left_out
    prepare_workload(params, base_window(params.model), documents.path, load_tokenizer(params.model), left_out)


def report_settings(params: PipelineParams, base_window: int, workload: Workload, arms: Arms) -> EvaluationSettings:
    """The settings of this evaluation, without paths, since reports are published."""
    measured: dict[str, Any] = {
        "arms": arms.names,
        "arms_left_out": arms.left_out,
        "as_served_note": arms.as_served_note,
        "published_data": published_files(params),
        "published_left_out": workload.published_left_out,
        "lengths": workload.lengths,
        "task_lengths": workload.task_lengths,
        "num_samples": workload.num_samples,
        "reorder_left_out": workload.ranked.left_out,
        "base_window": base_window,
        "target_length": params.model.target_length,
        "rope_method": params.model.rope_method,
        "measured_with": measured_with(params),
    }
    if QUANTISED_ARM in arms.names:
        measured["base_precision"] = params.training.base_precision
    if workload.asks_in_chat:
        measured["chat_template"] = True
    not_told = {"num_documents", "batch_tokens", "rope_methods", "published_data", "chat_template"}
    asked = params.evaluation.model_dump(exclude=not_told)
    return EvaluationSettings.model_validate(asked | measured).publishable()


class _Evaluation:
    """Makes one artifact."""

    def __init__(
        self,
        params: PipelineParams,
        storage: Storage,
        arms: Arms,
        documents: Artifact,
        checkpoint: Artifact | None,
        progress: ProgressCallback,
    ) -> None:
        from tasks.model.base_model import load_tokenizer
        from tasks.model.extended import base_window

        self._params, self._arms, self._progress, self._documents = params, arms, progress, documents.path
        self._base_window = base_window(params.model)
        self._seen = seen_in_training(checkpoint, storage, params.evaluation.max_seen_share)
        self._tokenizer = load_tokenizer(params.model)
        self._plan(params)
        self._trained_on = "no checkpoint"
        if checkpoint:
            self._trained_on = refuse_trained_on(self._workload.doc_ids, checkpoint, storage)
        self._models = ArmModel.of(params, storage, checkpoint.location if checkpoint else None)

    def _plan(self, params: PipelineParams) -> None:
        """The workload of `params` and its units."""
        self._workload = prepare_workload(params, self._base_window, self._documents, self._tokenizer, self._seen.left_out)
        batch_tokens = params.evaluation.batch_tokens
        self._units = plan_units(self._workload, self._arms.names, batch_tokens, self._base_window)
        self._reorder_units: list[Unit] = []
        if ARM in self._arms.names:
            self._reorder_units = plan_reorder_units(self._workload, batch_tokens, len(self._units))

    def write(self, directory: Path, workers: Workers, parts: Parts) -> dict[str, Any]:
        """Measure, fill `directory`, and return the summary."""
        from tasks.evaluate.report.result_files import write_results

        self._keep_to_time_budget(workers, parts)
        self._tell_arms()
        settings = report_settings(self._params, self._base_window, self._workload, self._arms)
        if power := planned_power(settings):
            dip = dip_line(settings)
            for line in (*power_lines(power), *([dip] if dip else [])):
                self._progress(message(f"evaluate: {line}"))
        write_workload(self._workload, parts)
        samples = self._measure(workers, parts, settings)
        samples.write(directory)
        found: dict[str, Any] = {"trained_on_check": self._trained_on}
        if self._seen.section:
            found["seen_text"] = self._seen.section
        if benchmarks := self._benchmarks(workers, parts):
            content = {arm: results.model_dump() for arm, results in benchmarks.items()}
            (directory / "lm_eval.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            found["lm_eval"] = benchmarks
        settings = settings.model_copy(update=found)
        (directory / SETTINGS_NAME).write_text(record_json(settings), encoding="utf-8")
        report = write_results(directory, samples, settings)
        decision = report.reorder_decision
        return {
            "arms": list(self._arms.names),
            "num_documents": len(self._workload.documents),
            "num_prompts": sum(len(prompts) for prompts in self._workload.prompts.values()),
            "perplexity": {f"{cell.arm}@{cell.length}": round(cell.perplexity, 4) for cell in report.perplexity},
            "effective_context_length": report.effective_context_length.arms,
            "reorder_strategy": decision.strategy if decision else None,
        }

    def _tell_arms(self) -> None:
        tasks = f", tasks {', '.join(self._workload.task_lengths)}" if self._workload.prompts else ""
        self._progress(
            message(
                f"evaluate: {len(self._workload.documents)} held-out documents, "
                f"lengths {', '.join(map(str, self._workload.all_lengths))}, models {', '.join(self._arms.names)}{tasks}"
            )
        )
        if why := self._workload.ranked.left_out:
            self._progress(message(f"evaluate: reorder strategies are not compared: {why}"))
        for name, why in (self._arms.left_out | dict(self._workload.published_left_out)).items():
            self._progress(message(f"evaluate: {name} is left out: {why}"))
        if self._seen.left_out:
            self._progress(
                message(
                    f"evaluate: {len(self._seen.left_out):,} held-out documents are left out, because more than "
                    f"{self._params.evaluation.max_seen_share:.0%} of their text was in training"
                )
            )
        if self._trained_on.startswith(NOT_CHECKED):
            self._progress(message(f"evaluate: whether these documents were trained on is {self._trained_on}"))

    def _measure(self, workers: Workers, parts: Parts, settings: EvaluationSettings) -> Samples:
        kept = {unit.number for unit in self._units if parts.has(f"measured-{unit.number:05d}.json")}
        kept |= {unit.number for i, unit in enumerate(self._reorder_units) if parts.has(f"reordered-{i:05d}.json")}
        all_units = [*self._units, *self._reorder_units]
        cost = base_cost(self._params.model)
        self._estimate(workers, [unit for unit in all_units if unit.number not in kept], cost)
        meter = Meter(all_units, kept, cost, self._progress)
        batch_tokens = self._params.evaluation.batch_tokens
        if asks_longppl(self._workload.perplexities):
            self._find_key_tokens(workers, parts)
        job = MeasureUnit(self._models, batch_tokens, parts)
        samples = _run(job, self._units, workers, parts, "measured", meter)
        if not self._reorder_units:
            return samples
        curve = published_curve(recall_curve(samples, settings))
        strategies = compared_strategies(self._workload.ranked.questions, curve)
        reorder_job = MeasureReorder(self._models, batch_tokens, parts, strategies, curve)
        reordered = _run(reorder_job, self._reorder_units, workers, parts, "reordered", meter)
        return replace(samples, reorder=reordered.reorder)

    def _find_key_tokens(self, workers: Workers, parts: Parts) -> None:
        evaluator = self._params.evaluation.published_data.longppl_evaluator
        assert evaluator is not None, "refuse_missing asks for it"
        self._progress(message("evaluate: the evaluator of LongPPL chooses the key tokens"))
        absolute = str(Path(evaluator).expanduser().absolute())
        job = FindKeyTokens(self._models, absolute, parts, self._params.evaluation.batch_tokens)
        write_key_spans(self._workload.published, self._workload.lengths, job, workers, parts)

    def _estimate(self, workers: Workers, units: Sequence[Unit], cost: Any) -> None:
        if not units:
            return
        of_units = Cost.of(units, cost)
        self._progress(of_units.estimate(of_units.flops / self._flops_per_s(workers, units, cost)))

    def _flops_per_s(self, workers: Workers, units: Sequence[Unit], cost: Any) -> float:
        """Of all workers together, measured on one of them."""
        probe = Probe(self._models, probe_tokens(units))
        (seconds,) = workers.map(probe, [units[0].arm])
        return cost.forward_flops([probe.num_tokens]) / seconds * self._params.ray.num_workers

    def _keep_to_time_budget(self, workers: Workers, parts: Parts) -> None:
        """Plan fewer samples where those asked for do not fit evaluation.time_budget."""
        evaluation, asked = self._params.evaluation, self._workload.num_samples
        if evaluation.time_budget is None or asked is None:
            return
        num_samples = kept_number(parts)
        if num_samples is None:
            cost, units = base_cost(self._params.model), [*self._units, *self._reorder_units]
            speed = self._flops_per_s(workers, units, cost)
            num_samples = fitting_samples(units, evaluation.tasks, asked, cost, speed, 60 * evaluation.time_budget)
            keep_number(num_samples, parts)
        if num_samples == asked:
            return
        self._progress(
            message(
                f"evaluate: {num_samples} of {asked} samples of each task fit evaluation.time_budget of {evaluation.time_budget:g} minutes"
            )
        )
        fewer = evaluation.model_copy(update={"num_samples": num_samples})
        self._plan(self._params.model_copy(update={"evaluation": fewer}))

    def _benchmarks(self, workers: Workers, parts: Parts) -> dict[str, BenchmarkResults]:
        """lm-evaluation-harness's results by arm; empty where none are asked for."""
        evaluation = self._params.evaluation
        arms = lm_eval.measured_arms(self._arms.names)
        if not evaluation.lm_eval_tasks:
            return {}
        self._progress(
            message(f"evaluate: lm-evaluation-harness runs {', '.join(evaluation.lm_eval_tasks)} on {', '.join(arms)}")
        )
        job = lm_eval.Benchmark(self._models, self._workload.lengths)
        results = run_units(workers, job, arms, parts, "lm_eval")
        return {arm: BenchmarkResults.model_validate(of_arm) for arm, of_arm in zip(arms, results, strict=True)}


def _run(job: UnitFunction, units: Sequence[Unit], workers: Workers, parts: Parts, name: str, meter: Meter) -> Samples:
    """The rows of all units; those that an interrupted run measured come from its parts."""
    kinds: list[list[str]] = []
    for unit, of_unit in zip(units, run_units(workers, job, units, parts, name), strict=True):
        kinds.append(of_unit)
        meter.finished(unit)
    return _collected(units, kinds, parts)


def _collected(units: Sequence[Unit], kinds: Sequence[Sequence[str]], parts: Parts) -> Samples:
    """All units' rows."""
    tables: dict[str, list[pa.Table]] = {kind: [schema.empty_table()] for kind, schema in SCHEMAS.items()}
    for unit, of_unit in sorted(zip(units, kinds, strict=True), key=lambda pair: pair[0].row):
        for kind in of_unit:
            with parts.reading(rows_name(kind, unit.number)) as path:
                tables[kind].append(pq.read_table(path, schema=SCHEMAS[kind], memory_map=False))
    return Samples(**{kind: pa.concat_tables(of_kind).combine_chunks() for kind, of_kind in tables.items()})
