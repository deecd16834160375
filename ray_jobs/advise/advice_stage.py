"""The stage that measures the advice: the same questions, asked in every way.

    advices/<digest>/
        serving_advice.json     the ways, their figures and what they advise (`data_schemas.serving_advice`)
        advice_samples.parquet  one row a way and question; all figures are computed from these
        questions.jsonl         what was asked, with its evidence
        serving_advice.png      quality against cost

A killed run asks only what was not answered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_schemas.manifest import stage_digest
from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from data_schemas.progress import ProgressCallback, message
from data_schemas.serving_advice import ADVICE_FILE_NAME, AdviceArm, ServingAdvice, ServingWay
from data_schemas.storage import Artifact, Storage
from ray_jobs.actors import measuring_workers
from ray_jobs.advise.advice_key import KIND, inputs_of, qa_file
from ray_jobs.advise.asking_units import AskUnit, Unit, forget, outcomes, prompting_of, write_questions
from ray_jobs.advise.kept_answers import KeptAnswers
from ray_jobs.advise.meter import Meter
from ray_jobs.evaluate.arms import ArmModel, forget_model
from ray_jobs.evaluate.seen_text import seen_in, seen_in_training
from ray_jobs.evaluate.trained_on import refuse_trained_on
from ray_jobs.finetune.training.training_log import PROGRESS_NAME
from ray_jobs.shared_storage import refuse_unshared
from tasks.advise.advice import Measured, Origin, make_advice, told_advice, with_routes
from tasks.advise.material import Material, gather
from tasks.advise.plan import Planned, plan_ways
from tasks.advise.plot import PLOT_NAME, advice_plot
from tasks.advise.prices import Prices, logged_hours
from tasks.advise.rows import AnswerRow, answer_row, as_table
from tasks.work import Workers, run_units

SAMPLES_NAME, QUESTIONS_NAME = "advice_samples.parquet", "questions.jsonl"
_REMEDY = "lower model.target_length, evaluation.batch_tokens or ray.num_workers"


def determining(params: PipelineParams) -> dict[str, Any]:
    """The parameters that decide what the job `advise` makes, which trains first where that is missing."""
    from ray_jobs.finetune import checkpoint_stage

    return checkpoint_stage.determining(params) | {
        "advise": params.advise.recorded(exclude={"after_evaluation"}),
        "evaluation": {name: getattr(params.evaluation, name) for name in ("qa_file", "chat_template", "max_seen_share")},
    }


def run(
    params: PipelineParams,
    storage: Storage,
    documents: Artifact,
    checkpoint: Artifact | None,
    progress: ProgressCallback,
) -> Artifact:
    """Ask all questions in all ways, or find the advice of an equal run.

    Args:
        documents: ingest's artifact; its held-out split is asked about.
        checkpoint: finetune's artifact; None asks the models that need no training.

    Raises:
        UserError: no question can be made; a file of questions or the embedding model is wrong; workers keep dying. What was
            answered stays.
    """
    inputs = inputs_of(params, documents, checkpoint)
    parts_key = stage_digest(**inputs)

    def make(directory: Path) -> dict[str, Any]:
        kept = KeptAnswers(params, storage, inputs)
        advice = _Advice(params, storage, documents, checkpoint, kept, progress)
        if advice.is_told:
            return advice.write_told(directory)
        with measuring_workers(params.ray, _REMEDY) as workers, storage.parts(parts_key, workers.on_other_machines) as parts:
            if workers.on_other_machines:
                refuse_unshared(params, storage, parts_only=True)
            return advice.write(directory, workers, parts)

    try:
        artifact = storage.build(KIND, make=make, **inputs)
    finally:
        forget_model()
        forget()
    storage.drop_parts(parts_key, was_finished=artifact.reused)
    progress(message(f"advise: {artifact.manifest.summary['overall']}"))
    return artifact


def refuse_unadvisable(params: PipelineParams, storage: Storage, documents: Artifact, shards: Artifact) -> None:
    """UserError, before any training, if no question can be made or a file of questions is wrong.

    If the training is already done, nothing is checked here: the stage itself refuses the same.
    """
    from ray_jobs.finetune import checkpoint_stage as finetune

    if not finetune.find(params, storage, shards):
        material = _material(params, documents, seen_in(shards, params.evaluation.max_seen_share).left_out)
        if not material.told:
            _plan(params, material, _windows(params, params.advise.arms))


def _material(params: PipelineParams, documents: Artifact, leave_out: Set[str]) -> Material:
    from tasks.model.base_model import load_tokenizer
    from tasks.model.extended import base_window

    given = qa_file(params)
    prompting = prompting_of(params, load_tokenizer(params.model))
    windows = (base_window(params.model), params.model.target_length)
    return gather(params.advise, documents.path, given[0] if given else None, windows, prompting.num_tokens, leave_out)


def _windows(params: PipelineParams, arms: Sequence[AdviceArm]) -> dict[AdviceArm, int]:
    """Of these models, in their usual order."""
    from tasks.model.extended import base_window

    extended = params.model.target_length
    windows: dict[AdviceArm, int] = {"base": base_window(params.model), "scaling_only": extended, "fine_tuned": extended}
    return {arm: window for arm, window in windows.items() if arm in arms}


def _plan(params: PipelineParams, material: Material, windows: dict[AdviceArm, int]) -> Planned:
    from tasks.model.extended import base_window

    shortest, longest = material.lengths
    base = base_window(params.model)
    return plan_ways(params.advise, params.chunking, windows, base, longest_document=longest, shortest_document=shortest)


class _Advice:
    """Makes one artifact."""

    def __init__(
        self,
        params: PipelineParams,
        storage: Storage,
        documents: Artifact,
        checkpoint: Artifact | None,
        kept: KeptAnswers,
        progress: ProgressCallback,
    ) -> None:
        self._params, self._advise, self._progress, self._checkpoint = params, params.advise, progress, checkpoint
        self._kept = kept
        asked_arms = [arm for arm in params.advise.arms if arm != "fine_tuned" or checkpoint is not None]
        self._windows = _windows(params, asked_arms)
        seen = seen_in_training(checkpoint, storage, params.evaluation.max_seen_share)
        self._material = _material(params, documents, seen.left_out)
        asked = self._material.questions.asked
        if checkpoint:
            refuse_trained_on({question.document_id for question in asked}, checkpoint, storage)
        self._origin = Origin(documents.digest, checkpoint.digest if checkpoint else None, self._material.questions.origin)
        self._models = ArmModel.of(params, storage, checkpoint.location if checkpoint else None)
        for said in self._material.said:
            self._say(said)

    @property
    def is_told(self) -> bool:
        """Whether the lengths of the documents alone tell the advice."""
        return bool(self._material.told)

    def write_told(self, directory: Path) -> dict[str, Any]:
        window = _windows(self._params, ("base",))["base"]
        way = ServingWay(name="full/base", way="full", arm="base", window=window)
        advice = told_advice(self._material.told, way, self._origin, self._advise.confidence)
        return self._written(directory, advice, Measured((way,), {way.name: ()}))

    def write(self, directory: Path, workers: Workers, parts: Parts) -> dict[str, Any]:
        """Ask, compare, fill `directory`, and return the summary."""
        planned = self._planned()
        asked = self._material.questions.asked
        write_questions(asked, parts)
        kinds = len({question.kind for question in asked})
        self._say(f"{len(asked)} questions of {kinds} kind(s), {len(planned.ways)} ways, {len(self._windows)} model(s)")
        rows = self._asked(planned.ways, workers, parts)
        measured = Measured(planned.ways, rows, (*self._material.questions.notes, *planned.notes))
        if "route" in self._advise.ways:
            measured = with_routes(measured, self._advise.seed)
        advice = make_advice(
            measured,
            self._origin,
            Prices(self._advise.prices, self._training_hours()),
            confidence=self._advise.confidence,
            seed=self._advise.seed,
            currency=self._advise.prices.currency,
        )
        advice_plot(advice).save_png(directory / f"{PLOT_NAME}.png")
        return self._written(directory, advice, measured)

    def _planned(self) -> Planned:
        planned = _plan(self._params, self._material, self._windows)
        for note in planned.notes:
            self._say(f"left out: {note}")
        return planned

    def _asked(self, ways: Sequence[ServingWay], workers: Workers, parts: Parts) -> dict[str, list[AnswerRow]]:
        questions = self._material.questions.asked
        # a model is loaded once, and a document is cut and indexed once for all ways of that model
        units = [
            Unit(way, number) for arm in self._windows for number in range(len(questions)) for way in ways if way.arm == arm
        ]
        if adopted := self._kept.adopt(units, questions, parts):
            self._say(f"{adopted:,} of {len(units):,} answers are kept from an earlier run")
        meter = Meter(len(units), [parts.has(f"asked-{number:05d}.json") for number in range(len(units))], self._progress)
        rows: dict[str, list[AnswerRow]] = {way.name: [] for way in ways}
        for unit, kept in zip(units, run_units(workers, AskUnit(self._models, parts), units, parts, "asked"), strict=True):
            asked, control = outcomes(kept)
            rows[unit.way.name].append(answer_row(unit.way.name, questions[unit.question], asked, control))
            meter.finished()
        self._kept.keep(units, questions, parts)
        return rows

    def _training_hours(self) -> float | None:
        if (stated := self._advise.prices.training_hours) is not None or self._checkpoint is None:
            return stated
        return logged_hours(self._checkpoint, PROGRESS_NAME)

    def _written(self, directory: Path, advice: ServingAdvice, measured: Measured) -> dict[str, Any]:
        (directory / ADVICE_FILE_NAME).write_text(advice.model_dump_json(indent=1) + "\n", encoding="utf-8")
        pq.write_table(as_table(measured.all_rows), directory / SAMPLES_NAME)
        lines = "".join(json.dumps(asdict(question)) + "\n" for question in self._material.questions.asked)
        (directory / QUESTIONS_NAME).write_text(lines, encoding="utf-8")
        return {
            "overall": advice.overall,
            "num_questions": len(self._material.questions.asked),
            "num_ways": len(advice.ways),
            "advised": {one.kind: one.way for one in advice.advice},
        }

    def _say(self, text: str) -> None:
        self._progress(message(f"advise: {text}"))
