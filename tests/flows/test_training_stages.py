"""The chain with `training.stages`: what each stage starts from, what is found again, and what a wrong stage says before any work."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data_schemas.earlier_stages import describe_stages, rows_read, shards_trained_on, stages_up_to
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, RopeSearchParams
from data_schemas.rope_search import RESULT_NAME, RopeSearchResult
from data_schemas.storage import Artifact, Storage
from flows.chain import Chain
from flows.check_inputs import check_inputs
from flows.commands.plan_stages import foresee_stages, print_stages
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.finetune.planning.shape import training_shape
from ray_jobs.finetune.planning.worker_memory import memory_of_worker
from ray_jobs.finetune.training.loop import step_order
from ray_jobs.preflight import refuse_untrainable
from ray_jobs.search_rope import search_key
from tasks.rope_search.plans import as_search, with_result


def staged_params(folder, *stages, **model) -> PipelineParams:
    given = {"base": "demo", "target_length": 2048, "rope_method": "yarn"} | model
    training = {"stages": list(stages) or [{"target_length": 1024, "steps": 3}, {"target_length": 2048}], "steps": 5}
    return PipelineParams.model_validate(
        {"run_name": "staged", "storage": str(folder), "corpus": {"sources": ["x"]}, "model": given, "training": training}
    )


def search_that_chose(storage: Storage, chosen: str) -> Artifact:
    """A finished search without its factors and log."""
    settings = RopeSearchParams()
    result = RopeSearchResult.model_construct(
        settings=settings, original_length=512, target_length=2048, theoretical_critical_pair=16, critical_pair=17,
        critical_scores={}, critical_theta=5e5, factors=(2.0,) * 32, attention_factor=1.1, attention_searched=True,
        num_evaluations=1, num_passes=1, best_by_generation=(), forms=(), level_of_each_comparison=0.95, chosen=chosen,
        verdict=f"The plan takes {chosen}.",
    )  # fmt: skip

    def make(folder):
        (folder / RESULT_NAME).write_text(result.model_dump_json())
        return {"chosen": chosen, "verdict": result.verdict}

    return storage.build("rope_searches", stage="search-rope", params={"a": chosen}, code_version=1, parents={}, make=make)


class RecordingStages:
    """Makes empty artifacts under the real keys, and notes what each stage was given."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.seen, self.told = storage, [], []

    def _make(self, kind: str, **identity: Any) -> Artifact:
        def make(folder: Path) -> dict[str, Any]:
            (folder / "content").write_text(kind)
            return {"steps": 1}

        return self.storage.build(kind, make=make, **identity)

    def ingest(self, params):
        return self._make("documents", stage="ingest", params={}, code_version=1, parents={})

    def prepare(self, params, documents):
        self.seen.append(("prepare", params.model.target_length))
        recorded = {"rows": params.row_tokens}
        return self._make("shards", stage="prepare", params=recorded, code_version=1, parents={"documents": documents.digest})

    def search_rope(self, params, documents, start=None):
        self.seen.append(("search_rope", params.model.target_length, start and start.digest))
        inputs = search_key.inputs_of(params, documents, start)

        def make(folder):
            raise UserError("no search here")

        return self.storage.build(search_key.KIND, make=make, **inputs)

    def finetune(self, params, shards, start=None):
        self.seen.append(("finetune", params.model.target_length, params.training.steps, start and start.digest))
        return self._make(checkpoint_stage.KIND, **checkpoint_stage._inputs(params, shards, start))

    def refuse_unsearchable(self, params, documents):
        self.seen.append(("can search", [stage.model.target_length for stage in params.by_stage()], documents.digest))

    def tell(self, text):
        self.told.append(text)

    around = staticmethod(lambda params, needs_gpu: contextlib.nullcontext())


def test_a_run_begins_with_what_it_does_not_use(tmp_path):
    params = staged_params(tmp_path)
    stages = RecordingStages(Storage(str(tmp_path)))
    Chain(params, stages).reach("finetuned")
    assert stages.told == []
    training = params.training.model_copy(update={"loss_max_weight": 3.0})
    stages = RecordingStages(Storage(str(tmp_path)))
    stages.prepare = lambda *given: (
        pytest.fail("nothing was said before the first stage") if not stages.told else prepare(*given)
    )
    prepare = RecordingStages(stages.storage).prepare
    Chain(params.model_copy(update={"training": training}), stages).reach("finetuned")
    assert stages.told[0] == "not used: training.loss_max_weight, because training.loss_weighting is none"


def test_each_stage_goes_on_from_the_one_before_and_is_found_again(tmp_path):
    params, storage = staged_params(tmp_path), Storage(str(tmp_path))
    stages = RecordingStages(storage)
    chain = Chain(params, stages)
    last = chain.finetuned()
    first = chain.artifacts["checkpoint_1"]
    assert stages.seen == [
        ("prepare", 2048),
        ("prepare", 1024),
        ("finetune", 1024, 3, None),
        ("finetune", 2048, 5, first.digest),
    ]
    assert last.manifest.parents["checkpoint"] == first.digest
    assert list(storage.recorded_run("staged")) == ["documents", "shards", "shards_1", "checkpoint_1", "checkpoint"]
    again = Chain(params, RecordingStages(storage))
    assert again.finetuned().digest == last.digest
    assert all(entry["reused"] for entry in again.record.values())
    alone = params.by_stage()[0]
    assert checkpoint_stage.find(alone, storage, chain.artifacts["shards_1"]) is not None, "stage 1 is a run of its own"
    assert checkpoint_stage.find(params.by_stage()[1], storage, chain.artifacts["shards"]) is None, "not without its start"
    other = staged_params(tmp_path, {"target_length": 1024, "steps": 4}, {"target_length": 2048})
    assert Chain(other, RecordingStages(storage)).finetuned().digest != last.digest, "another first stage, another last one"


@pytest.mark.parametrize(
    ("ray", "training"),
    [
        ({"num_workers": 4}, {}),
        ({"num_workers": 2, "sequence_workers": 2}, {}),
        ({}, {"micro_batch_rows": 2, "checkpoint_every": 1, "validate_every": 3, "loss_chunk_tokens": 64}),
    ],
)
def test_a_finished_stage_is_found_although_it_was_computed_in_another_way(tmp_path, ray, training):
    params, storage = staged_params(tmp_path), Storage(str(tmp_path))
    Chain(params, RecordingStages(storage))._trained(1)
    changed = params.model_copy(
        update={"ray": params.ray.model_copy(update=ray), "training": params.training.model_copy(update=training)}
    )
    stages = RecordingStages(storage)
    chain = Chain(PipelineParams.model_validate(changed.model_dump()), stages)
    last = chain.finetuned()
    first = chain.artifacts["checkpoint_1"]
    assert [one for one in stages.seen if one[0] == "finetune"] == [("finetune", 2048, 5, first.digest)]
    assert chain.record["checkpoint_1"]["reused"]
    assert last.manifest.parents["checkpoint"] == first.digest
    (told,) = stages.told
    for name in (*(f"ray.{name}" for name in ray), *(f"training.{name}" for name in training)):
        assert name in told
    assert first.digest in told
    work = [checkpoint_stage.trajectory_of(checkpoint_stage.stage_params(one.by_stage()[-1])) for one in (params, changed)]
    assert work[0] == work[1], "and what is left of the last stage goes on"
    assert list(storage.manifests("checkpoints")) == sorted((first.manifest, last.manifest), key=lambda one: one.digest)


def test_a_damaged_stage_that_was_computed_in_another_way_is_trained_anew(tmp_path):
    params, storage = staged_params(tmp_path), Storage(str(tmp_path))
    chain = Chain(params, RecordingStages(storage))
    chain._trained(1)
    damaged = chain.artifacts["checkpoint_1"]
    (damaged.path / damaged.manifest.files[0].path).unlink()
    stages = RecordingStages(storage)
    Chain(params.model_copy(update={"ray": params.ray.model_copy(update={"num_workers": 4})}), stages)._trained(1)
    assert [one[:2] for one in stages.seen][-1] == ("finetune", 1024)
    assert not stages.told


def test_a_stage_of_other_steps_or_another_start_is_trained_anew(tmp_path):
    storage = Storage(str(tmp_path))
    Chain(staged_params(tmp_path), RecordingStages(storage))._trained(1)
    for name, value in (("seed", 5), ("rows_per_step", 16), ("learning_rate", 1e-5)):
        params = staged_params(tmp_path)
        other = params.model_copy(update={"training": params.training.model_copy(update={name: value})})
        stages = RecordingStages(storage)
        Chain(other, stages)._trained(1)
        assert [one[:2] for one in stages.seen][-1] == ("finetune", 1024), name
        assert not stages.told


def test_factors_of_a_stage_are_searched_on_the_model_before(tmp_path):
    params = staged_params(
        tmp_path, {"target_length": 1024, "rope_method": "ntk"}, {"target_length": 2048}, rope_method="longrope"
    )
    stages = RecordingStages(Storage(str(tmp_path)))
    chain = Chain(params, stages)
    with pytest.raises(UserError, match="no search here"):
        chain.finetuned()
    assert stages.seen[-1] == ("search_rope", 2048, chain.artifacts["checkpoint_1"].digest)
    documents = chain.artifacts["documents"]
    keys = {json.dumps(search_key.inputs_of(params, documents, start)) for start in (None, chain.artifacts["checkpoint_1"])}
    assert len(keys) == 2
    asked = [index for index, one in enumerate(stages.seen) if one[0] == "can search"]
    assert [stages.seen[index] for index in asked] == [("can search", [1024, 2048], documents.digest)]
    assert asked < [index for index, one in enumerate(stages.seen) if one[0] == "finetune"], "before anything is trained"
    again = RecordingStages(Storage(str(tmp_path)))
    Chain(params, again)._trained(1)
    assert all(one[0] != "can search" for one in again.seen), "not where nothing is made"


def test_a_checkpoint_says_what_all_its_stages_were_trained_on(tmp_path):
    storage = Storage(str(tmp_path))

    def made(digest: str, shards: str, **summary: Any) -> Artifact:
        parents, recorded = {"shards": shards}, {"model": {"target_length": len(digest)}}
        return storage.build(
            "checkpoints",
            stage="finetune",
            params=recorded | {"n": digest},
            code_version=1,
            parents=parents,
            make=lambda _: summary,
        )

    first = made(
        "a", "s1", steps=3, rope_method="yarn", factor=2.0, retrieval_mix={"share": 0.498, "families": ["keyword", "position"]}
    )
    second = made("b", "s2", steps=4, rope_method="ntk", factor=4.5, earlier_stages=stages_up_to(first.manifest))
    third = made("c", "s3", earlier_stages=stages_up_to(second.manifest))
    assert shards_trained_on(third.manifest) == ["s1", "s2", "s3"]
    assert [stage["steps"] for stage in third.manifest.summary["earlier_stages"]] == [3, 4]
    told = describe_stages(third.manifest.summary["earlier_stages"])
    assert told == "1 tokens in 3 steps, yarn x2, 50% retrieval documents (keyword, position); 1 tokens in 4 steps, ntk x4.5"


def test_a_stage_goes_on_in_the_rows_that_a_stage_before_has_begun(tmp_path):
    same = {"target_length": 2048, "steps": 3, "learning_rate": 1e-3}
    params, storage = staged_params(tmp_path, same, same | {"steps": 4}), Storage(str(tmp_path))
    chain = Chain(params, RecordingStages(storage))
    last = chain.finetuned()
    first, shards = chain.artifacts["checkpoint_1"], chain.artifacts["shards"]
    assert chain.artifacts["shards_1"].digest == shards.digest
    read = rows_read(first.manifest, shards.digest)
    assert read == 3 * params.training.rows_per_step
    assert last.manifest.params["rows_read"] == read
    assert "rows_read" not in first.manifest.params
    ordered = step_order(params, range(50))
    after = step_order(params, range(50), rows_read=read)
    assert [after.rows(step) for step in range(9)] == [ordered.rows(step) for step in range(3, 12)]
    assert rows_read(first.manifest, "other rows") == 0
    again = Chain(params, RecordingStages(storage))
    assert again.finetuned().digest == last.digest
    assert all(entry["reused"] for entry in again.record.values())


def test_rows_that_cannot_be_packed_are_told_of_their_stage(tmp_path):
    stage = {"target_length": 2048, "retrieval_share": 0.001}
    stages = RecordingStages(Storage(str(tmp_path)))
    made = stages.prepare

    def prepare(params, documents):
        if params.retrieval.share:
            raise UserError(f"retrieval.share {params.retrieval.share} is less than one document.")
        return made(params, documents)

    stages.prepare = prepare
    told = r"training\.stages\[0\] \(2048 tokens\): training\.stages\[0\]\.retrieval_share 0\.001 is less"
    with pytest.raises(UserError, match=told):
        Chain(staged_params(tmp_path, stage, {"target_length": 2048}), stages).finetuned()


def test_wrong_stages_are_one_sentence_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"training\.stages\[0\] \(512 tokens\): There is nothing to extend"):
        refuse_untrainable(staged_params(tmp_path, {"target_length": 512}, {"target_length": 2048}))
    factors = tmp_path / "factors.json"
    factors.write_text(json.dumps({"short_factor": [1.0], "long_factor": [2.0]}))
    stage = {"target_length": 1024, "rope_method": "longrope", "rope_factors_file": str(factors)}
    with pytest.raises(
        UserError, match=r"training\.stages\[0\] \(1024 tokens\): .*short_factor has 1 number, and this model needs 32"
    ):
        refuse_untrainable(staged_params(tmp_path, stage, {"target_length": 2048}))
    factors.write_text(json.dumps({"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}))
    two_lists = staged_params(tmp_path, stage, {"target_length": 2048})
    for check in (refuse_untrainable, lambda params: foresee_stages(params, 0.001, None, 8e9)):
        with pytest.raises(UserError, match=r"training\.stages\[0\] \(1024 tokens\): .*set training\.short_window_share"):
            check(two_lists)
    searching = {"target_length": 1024, "rope_method": "longrope"}
    served = staged_params(tmp_path, searching, {"target_length": 2048}, serve_with=["vllm"])
    served = served.model_copy(update={"rope_search": RopeSearchParams(attention="searched")})
    for check in (refuse_untrainable, lambda params: foresee_stages(params, 0.001, None, 8e9)):
        with pytest.raises(UserError, match=r"training\.stages\[0\] \(1024 tokens\): vllm does not read"):
            check(served)
    with pytest.raises(UserError, match="searched on the model of the stage before"):
        as_search(staged_params(tmp_path))


@pytest.mark.parametrize("chosen", ["longrope", "yarn", "yarn_1.5", "ntk", "ntk_critical"])
def test_a_stage_with_its_own_factors_keeps_them_whatever_the_last_stages_search_chooses(tmp_path, chosen):
    stage = {"target_length": 1024, "rope_factors_file": "stage.json"}
    params = staged_params(tmp_path, stage, {"target_length": 2048}, rope_method="longrope")
    planned = with_result(params, search_that_chose(Storage(str(tmp_path)), chosen))
    assert PipelineParams.model_validate_json(planned.model_dump_json()) == planned, "as the evaluation gets it"
    assert planned.model.rope_length == (3072 if chosen == "yarn_1.5" else None)
    first = planned.by_stage()[0].model
    assert (first.rope_method, first.rope_factors_file, first.rope_theta) == ("longrope", "stage.json", None)


@pytest.mark.parametrize("method", ["yarn", "longrope", "theta"])
def test_a_stage_with_factors_takes_nothing_else_from_the_run(tmp_path, method):
    given = {"rope_method": method} | ({"rope_theta": 1e6} if method == "theta" else {})
    params = staged_params(
        tmp_path, {"target_length": 1024, "rope_factors_file": "stage.json"}, {"target_length": 2048}, **given
    )
    first = params.by_stage()[0].model
    assert (first.rope_method, first.rope_theta, first.rope_length) == ("longrope", None, None)


def test_a_base_frequency_for_an_arm_of_the_evaluation_is_not_the_stages(tmp_path):
    given = staged_params(tmp_path).model_dump()
    given["model"]["rope_theta"], given["evaluation"]["rope_methods"] = 1e6, ["theta"]
    assert PipelineParams.model_validate(given).by_stage()[0].model.rope_theta is None


@pytest.mark.parametrize("check", [check_inputs, refuse_untrainable])
def test_what_a_stage_has_for_itself_is_checked_also_where_the_last_one_searches(tmp_path, check):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    factors = tmp_path / "factors.json"
    factors.write_text(json.dumps({"short_factor": [1.0], "long_factor": [2.0]}))

    def checked(stage: dict[str, Any], **model: Any) -> None:
        params = staged_params(tmp_path / "storage", stage, {"target_length": 2048}, rope_method="longrope", **model)
        corpus = params.corpus.model_validate({"sources": [str(tmp_path / "texts")]})
        check(params.model_copy(update={"corpus": corpus}))

    with pytest.raises(
        UserError, match=r"training\.stages\[0\] \(1024 tokens\): .*short_factor has 1 number, and this model needs 32"
    ):
        checked({"target_length": 1024, "rope_factors_file": str(factors)})
    factors.write_text(json.dumps(dict.fromkeys(("short_factor", "long_factor"), [2.0] * 32) | {"attention_factor": 1.5}))
    with pytest.raises(UserError, match=r"training\.stages\[0\] \(1024 tokens\): vllm does not read"):
        checked({"target_length": 1024, "rope_factors_file": str(factors)}, serve_with=["vllm"])


def test_all_stages_are_foreseen(tmp_path):
    first = {"target_length": 1024, "steps": 3, "rope_method": "longrope", "rows_per_step": 2, "retrieval_share": 0.4}
    params = staged_params(tmp_path, first, {"target_length": 2048})
    params = params.model_copy(update={"ray": params.ray.model_copy(update={"num_workers": 2, "sequence_workers": 2})})
    stages = foresee_stages(params, 0.001, None, 8e9)
    last = params.by_stage()[-1]
    assert stages[-1].memory_bytes == memory_of_worker(last, training_shape(last), 8e9).estimate.total, "half of each row"
    assert [stage.tokens for stage in stages] == [3 * 2 * 1024, 5 * 8 * 2048]
    assert stages[0].search.startswith("RoPE factors are searched first")
    assert stages[0].memory_bytes < stages[1].memory_bytes
    console = Console(record=True, width=160)
    seconds = print_stages(console, stages)
    assert seconds == pytest.approx(sum(stage.seconds or 0 for stage in stages))
    text = console.export_text()
    assert "longrope, searched on the base" in text
    mixes = [line.split("│")[3].strip() for line in text.splitlines() if re.search(r"\d x [28] ", line)]
    assert mixes == ["40%", "0%"]
    assert f"{stages[0].tokens + stages[1].tokens:,}" in text
