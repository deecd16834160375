"""The stage that searches RoPE factors for a base, on texts that the evaluation never measures.

    rope_searches/<digest>/
        factors.json          `short_factor` and `long_factor`, equal unless `rope_search.short_factors` is original, and
                              `attention_factor` if that was searched
        rope_search.json      the result and its comparison with the closed forms (`data_schemas.rope_search`)
        evaluations.jsonl     everything that was measured, in order

Texts are training documents: some for the search, and others, of other works, for the decision. A killed search measures only what is
missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_schemas.absolute_paths import absolute_paths
from data_schemas.manifest import stage_digest
from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from data_schemas.progress import ProgressCallback, message
from data_schemas.quantities import duration
from data_schemas.record import Record
from data_schemas.rope_search import FACTORS_NAME, LOG_NAME, RESULT_NAME, DecidedForm, Evaluation, Form, RopeSearchResult
from data_schemas.storage import Artifact, Storage
from ray_jobs.actors import measuring_workers
from ray_jobs.search_rope.measuring import SAMPLES, MeasureCandidate, Unit, forget
from ray_jobs.search_rope.search_key import KIND, inputs_of
from ray_jobs.shared_storage import refuse_unshared
from tasks.model.base_model import base_fingerprint, load_config, load_tokenizer
from tasks.model.extended import ADAPTER_DIR
from tasks.rope_search.decision import FOUND, Decision, decide, far_behind, first_look
from tasks.rope_search.plans import factors_file, foreseen_passes, race_settings, rivals, space_for
from tasks.rope_search.race import Race, run_race
from tasks.rope_search.samples import SearchSample, make_samples, request_of, write_samples
from tasks.rope_search.scores import Measure, Measured, Scored
from tasks.rope_search.seeds import CLOSED_FORMS, NTK_CRITICAL, closed_form, critical_theta, ntk_critical
from tasks.rope_search.served import misreading, publishes_two_lists
from tasks.rope_search.sides import two_sides
from tasks.rope_search.space import Candidate, RopeSpace
from tasks.work import Workers

_ENOUGH_DECIDING = 6  # works: with 2, Student's t at level 0.955 is 14, with 6 it is 2.6
_REMEDY = "lower model.target_length or ray.num_workers"


def determining(params: PipelineParams) -> dict[str, Any]:
    """The parameters that decide what the job `search_rope` makes, which reads the corpus first where that is missing."""
    from tasks.ingest import documents_stage

    search = {"rope_search": params.rope_search.recorded(), "use_gpu": params.ray.use_gpu}
    return documents_stage.determining(params) | {"model": params.model.recorded()} | search


def run(
    params: PipelineParams, storage: Storage, documents: Artifact, progress: ProgressCallback, start: Artifact | None = None
) -> Artifact:
    """Search, or find the search of an equal run.

    `start` is the checkpoint of an earlier training stage, on whose model candidates are measured; None: on the base.

    Raises:
        UserError: this base or budget allows no search; fewer than four training documents are as long as the target; workers keep
            dying. What was measured stays.
    """
    inputs = inputs_of(params, documents, start)
    parts_key = stage_digest(**inputs)

    def make(directory: Path) -> dict[str, Any]:
        search = _Search(params, documents.path, progress, start)
        with measuring_workers(params.ray, _REMEDY) as workers, storage.parts(parts_key, workers.on_other_machines) as log:
            if workers.on_other_machines:
                refuse_unshared(params, storage, parts_only=start is None)
            return search.write(directory, workers, log)

    try:
        artifact = storage.build(KIND, make=make, **inputs)
    finally:
        forget()
    storage.drop_parts(parts_key, was_finished=artifact.reused)
    progress(message(f"search-rope: {artifact.manifest.summary['verdict']}"))
    return artifact


class _Search:
    """Makes one artifact."""

    def __init__(self, params: PipelineParams, documents: Path, progress: ProgressCallback, start: Artifact | None) -> None:
        self._params, self._settings, self._progress = params, params.rope_search, progress
        self._adapter = str(start.path / ADAPTER_DIR) if start else None
        self._config: Any = load_config(params.model)
        self._space = space_for(self._config, params)
        self._samples = search_samples(params, documents, self._space)
        self._records: list[dict[str, Any]] = []
        self._passes_foreseen = foreseen_passes(params, self._space)

    def write(self, directory: Path, workers: Workers, log: Parts) -> dict[str, Any]:
        """Search, decide, fill `directory`, and return the summary."""
        if not log.has(SAMPLES):
            with log.writing(SAMPLES) as path:
                write_samples(self._samples, path)
        ray = self._params.ray
        measuring = MeasureCandidate(
            model_json=absolute_paths(self._params).model.model_dump_json(),
            use_gpu=ray.use_gpu,
            theta=self._space.theta,
            num_pairs=self._space.num_pairs,
            num_threads=max(1, int(ray.cpus_per_worker)),
            log=log,
            adapter=self._adapter,
        )
        self._announce()

        def measure(candidates: Sequence[Candidate], first: int, stop: int, why: str) -> list[Measured]:
            return self._measured(workers, measuring, candidates, range(first, stop), why)

        race = run_race(self._space, race_settings(self._params), measure, self._tell)
        of_forms, clusters = self._deciding(self._forms(race), measure)
        compared = rivals(self._space, self._params, self._config)
        decision = decide(of_forms, compared, self._settings.text_weight, self._settings.confidence, clusters)
        result = self._result(race, of_forms, decision)
        _write(directory, result, factors_file(result, publishes_two_lists(self._params)), self._records)
        return {
            "chosen": result.chosen,
            "critical_pair": result.critical_pair,
            "num_evaluations": result.num_evaluations,
            "num_passes": result.num_passes,
            "verdict": result.verdict,
        }

    def _deciding(self, forms: dict[Form, Candidate], measure: Measure) -> tuple[dict[Form, Measured], list[str]]:
        """Every form on the first deciding samples, those that are not far behind on all of them; and each sample's cluster."""
        settings = self._settings
        first, stop = settings.samples, len(self._samples)
        clusters = [sample.cluster for sample in self._samples[first:]]
        middle = first + first_look(stop - first)
        found = dict(zip(forms, measure(list(forms.values()), first, middle, "decision"), strict=True))
        behind = far_behind(found, settings.text_weight, settings.confidence, clusters)
        close = [name for name in forms if name not in behind]
        if middle == stop:
            return found, clusters
        if behind:
            self._say(f"far behind after {middle - first} of {stop - first} deciding samples: {', '.join(behind)}")
        for name, rest in zip(close, measure([forms[name] for name in close], middle, stop, "decision"), strict=True):
            found[name] = Measured(found[name].answers + rest.answers, found[name].text + rest.text)
        return found, clusters

    def _announce(self) -> None:
        space, settings = self._space, self._settings
        searched, deciding = (
            len({sample.cluster for sample in part})
            for part in (self._samples[: settings.samples], self._samples[settings.samples :])
        )
        of_works = any(sample.cluster != sample.doc_id for sample in self._samples)
        kind = "works" if of_works else "documents"
        self._say(
            f"factors for {space.extension:g}x ({space.original_length} -> {space.target_length} tokens) in the {space.kind} space, on "
            f"{searched} training {kind}, and {deciding} others decide; at most {settings.evaluations} candidates, which take at most "
            f"{self._passes_foreseen} forward passes of {space.target_length} tokens"
            f"{'; on the model of the training stage before' if self._adapter else ''}"
        )
        if deciding < _ENOUGH_DECIDING:
            more = f", and set rope_search.deciding_samples to {_ENOUGH_DECIDING} or more"
            self._say(
                f"only {deciding} {kind} decide, so only a large difference can be shown, and the plan will rather take a closed form: add "
                f"documents of other works with at least {space.target_length} tokens"
                f"{more if settings.deciding_samples < _ENOUGH_DECIDING else ''}"
            )
        if settings.short_factors == "original" and (reasons := misreading(self._params, "longrope_two_lists")):
            self._say(f"both lists will be equal, because {', and '.join(reasons.values())}")

    def _say(self, text: str) -> None:
        self._progress(message(f"search-rope: {text}"))

    def _measured(
        self, workers: Workers, measuring: MeasureCandidate, candidates: Sequence[Candidate], samples: range, why: str
    ) -> list[Measured]:
        units = [Unit(candidate, sample, why) for candidate in candidates for sample in samples]
        is_first = not self._records
        found = []
        for record in workers.map(measuring, units):
            found.append(record)
            if is_first and len(found) == 2:  # the first one has loaded the model
                self._say(f"{duration(self._left(found, 2))} at most, at {record['seconds']:.1f} s a pass")
        self._records += found
        size = len(samples)
        rows = [found[i : i + size] for i in range(0, len(found), size)]
        return [Measured(tuple(r["answers"] for r in row), tuple(r["text"] for r in row)) for row in rows]

    def _left(self, recent: Sequence[dict[str, Any]], done: int) -> float:
        """Seconds until all foreseen passes are made."""
        each = sum(record["seconds"] for record in recent) / len(recent)
        return max(0, self._passes_foreseen - done) * each / self._params.ray.num_workers

    def _tell(self, generation: int, num_evaluations: int, incumbent: Scored) -> None:
        left = duration(self._left(self._records[-50:], len(self._records)))
        what = "the seeds" if generation == 0 else f"generation {generation}"
        self._say(
            f"after {what}, {num_evaluations} of {self._settings.evaluations} candidates in {len(self._records)} passes, the best scores "
            f"{incumbent.mean():.4f} nats; at most {left} left"
        )

    def _forms(self, race: Race) -> dict[Form, Candidate]:
        """The found factors, and every closed form, by name."""
        closed = {name: closed_form(self._space, name) for name in CLOSED_FORMS}
        return {FOUND: race.best.candidate, NTK_CRITICAL: ntk_critical(self._space, race.critical)} | closed

    def _result(self, race: Race, of_forms: dict[Form, Measured], decision: Decision) -> RopeSearchResult:
        best = race.best.candidate
        return RopeSearchResult(
            settings=self._settings,
            base=base_fingerprint(self._params.model),
            original_length=self._space.original_length,
            target_length=self._space.target_length,
            theoretical_critical_pair=self._space.theoretical_critical,
            critical_pair=race.critical,
            critical_scores=dict(sorted(race.critical_means.items())),
            critical_theta=critical_theta(self._space, race.critical),
            factors=best.factors,
            attention_factor=best.attention,
            attention_searched=self._space.attention,
            num_evaluations=race.num_evaluations,
            num_passes=len(self._records),
            best_by_generation=race.best_by_generation,
            forms=_decided(of_forms, decision, self._settings.text_weight),
            level_of_each_comparison=decision.level,
            chosen=decision.chosen,
            verdict=decision.sentence(),
        )


def _decided(of_forms: dict[Form, Measured], decision: Decision, text_weight: float) -> tuple[DecidedForm, ...]:
    rows = []
    for name, measured in of_forms.items():
        difference = decision.differences.get(name)
        count = len(measured.answers)
        rows.append(
            DecidedForm(
                name=name,
                num_samples=count,
                answers=sum(measured.answers) / count,
                text=sum(measured.text) / count,
                score=sum(measured.scores(text_weight)) / count,
                difference=difference.value if difference else None,
                low=difference.low if difference else None,
                high=difference.high if difference else None,
            )
        )
    # By the paired difference: means over different samples do not compare.
    return tuple(sorted(rows, key=lambda row: (-(row.difference or 0.0), row.name)))


def _write(directory: Path, result: RopeSearchResult, factors: dict[str, Any], records: Sequence[dict[str, Any]]) -> None:
    (directory / RESULT_NAME).write_text(_pretty(result), encoding="utf-8")
    (directory / FACTORS_NAME).write_text(json.dumps(factors, indent=1) + "\n", encoding="utf-8")
    lines = "".join(Evaluation.model_validate(record).model_dump_json() + "\n" for record in records)
    (directory / LOG_NAME).write_text(lines, encoding="utf-8")


def _pretty(record: Record) -> str:
    return record.model_dump_json(indent=1) + "\n"


def search_samples(params: PipelineParams, documents: Path, space: RopeSpace) -> list[SearchSample]:
    """Those of the search, then those of the decision, from different works; see `tasks.rope_search.sides`."""
    settings, target = params.rope_search, space.target_length
    tokenizer = load_tokenizer(params.model)
    remedy = "add longer documents, lower model.target_length, or choose rope_method yarn"
    counts = settings.samples, settings.deciding_samples
    sides = two_sides(documents, tokenizer, target, counts, "a search for RoPE factors", remedy)
    request = request_of(params)
    samples = [
        *make_samples(sides.choosing, request, tokenizer, purpose="search", count=settings.samples),
        *make_samples(sides.deciding, request, tokenizer, purpose="decide", count=settings.deciding_samples),
    ]
    return [replace(sample, cluster=sides.cluster_of[sample.doc_id]) for sample in samples]
