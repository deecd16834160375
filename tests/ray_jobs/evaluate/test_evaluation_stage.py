"""The stage on a tiny real run: arms, artifact, reuse, resume, refusals."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.report import read_report
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate import evaluation_stage as stage
from ray_jobs.evaluate import lm_eval
from ray_jobs.evaluate import measuring_units as units
from ray_jobs.evaluate.arms import choose_arms, served_arms
from ray_jobs.evaluate.trained_on import refuse_trained_on, training_documents
from ray_jobs.evaluate.workload import prepare_workload
from tasks.evaluate.report.result_files import recompute
from tasks.evaluate.sample_set import Samples
from tasks.model.base_model import load_config, load_tokenizer
from tasks.model.rope_plan import plan_rope
from tests.ray_jobs.evaluate.evaluation_example import TinyRun, make_tiny_run, write_chunks


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> TinyRun:
    return make_tiny_run(tmp_path_factory.mktemp("tiny"), tokenizer)


@pytest.fixture(scope="module")
def evaluation(tiny_run: TinyRun) -> Artifact:
    return tiny_run.evaluate(published=("yarn", "longlora"))


@pytest.mark.slow
def test_three_arms_on_the_same_documents_and_prompts(tiny_run: TinyRun, evaluation: Artifact) -> None:
    samples = Samples.read(evaluation.path)
    perplexity, tasks = samples.perplexity.to_pylist(), samples.task.to_pylist()
    assert {(row["arm"], row["length"]) for row in perplexity} == {
        (arm, length) for arm in ("base", "scaling_only", "fine_tuned") for length in (64, 128, 256)
    }
    assert {row["doc_id"] for row in perplexity} == {"d1", "d2", "d3", "d4"}, "held out and at least 256 tokens"
    nll = {(row["arm"], row["length"], row["doc_id"]): row["nll"] for row in perplexity}
    assert len(set(nll.values())) == len(nll), "every arm and length is a measurement of its own"
    assert all(row["nll"] == pytest.approx(-sum(row["logprobs"]), abs=1e-4) for row in perplexity)

    prompts = {
        arm: [(r["length"], r["depth"], r["prompt_hash"]) for r in tasks if r["arm"] == arm] for arm in stage_arms(tasks)
    }
    assert prompts["base"] == prompts["scaling_only"] == prompts["fine_tuned"], "byte-identical prompts"
    assert {length for length, _, _ in prompts["base"]} == {128, 256}, "64 tokens hold no needle"
    assert not list((tiny_run.storage.root / ".parts").glob("*")), "parts of a finished stage are dropped"
    estimate, *_ = [line for line in tiny_run.told if "at most about" in line]
    assert estimate.startswith("evaluate: 435 samples in 447 windows of"), (
        "rows: 36 of perplexity, 24 of tasks, 375 of protocols; 12 controls"
    )
    assert tiny_run.told[-1].startswith("evaluate: 435 of 435 samples"), "progress counts what the estimate announced"


def stage_arms(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows))


@pytest.mark.slow
def test_positions_and_protocols_have_rows_of_their_own(evaluation: Artifact) -> None:
    samples = Samples.read(evaluation.path)
    position = samples.position.filter(samples.position["arm"].to_numpy(False) == "base").to_pylist()
    assert {(row["length"], row["doc_id"]) for row in position} == {(256, f"d{i}") for i in (1, 2, 3, 4)}
    assert [(r["start"], r["end"]) for r in position if r["doc_id"] == "d1"] == [(1 << i, 2 << i) for i in range(8)]
    protocol = samples.protocol.to_pylist()
    assert {(row["protocol"], row["length"]) for row in protocol} == {
        (p, n) for p in ("yarn", "yarn_sliding", "longlora") for n in (64, 128, 256)
    }
    cut = [r for r in protocol if r["protocol"] == "yarn"]
    assert all((r["window"], r["num_tokens"]) == (0, r["length"] - 1) for r in cut), "one window of all tokens"
    assert {r["doc_id"] for r in cut} == {"d1", "d2", "d3", "d4"}
    report = stage.load_report(evaluation)
    assert all(row.label.endswith("not comparable with published figures") for row in report.protocols), "on own texts"


def test_the_report_can_be_computed_again_from_the_samples(tiny_run: TinyRun, evaluation: Artifact, tmp_path: Path) -> None:
    report = stage.load_report(evaluation)
    assert recompute(evaluation.path, tmp_path) == report
    assert (tmp_path / "report.json").read_bytes() == (evaluation.path / "report.json").read_bytes()
    assert report.settings.base_window == 128
    for file in ("report.json", "settings.json", "report.md"):
        assert str(tiny_run.storage.root.parent) not in (evaluation.path / file).read_text(), "published, so no folder is named"


def test_nothing_is_measured_twice(tiny_run: TinyRun, evaluation: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "measure_unit", None)
    second = tiny_run.evaluate(published=("yarn", "longlora"))
    assert second.reused
    assert second.digest == evaluation.digest


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
import torch
from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from ray_jobs.evaluate import evaluation_stage as stage

torch.set_num_threads(1)
params, inputs, root, documents, checkpoint = sys.argv[1:]

def kill_when_some_are_measured(event, arguments):
    if event == "open" and len(list(Path(root, ".parts").glob("*/measured-*.json"))) >= 5:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill_when_some_are_measured)  # at the next file that is opened: it cannot come too late
inputs = Storage(inputs)
stage.run(PipelineParams.model_validate_json(params), Storage(root), inputs.find("documents", documents),
          inputs.find("checkpoints", checkpoint), print)
"""


@pytest.mark.slow
def test_a_killed_run_keeps_finished_units_and_ends_with_the_same_bytes(
    tiny_run: TinyRun, evaluation: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tiny_run.elsewhere(tmp_path)
    shutil.copytree(tiny_run.storage.root / "shards", tmp_path / "shards")  # else what was trained on is not checked
    params = tiny_run.changed(published=("yarn", "longlora")).model_dump_json()
    inputs = (str(tiny_run.storage.root), str(tmp_path), tiny_run.documents.digest, tiny_run.checkpoint.digest)
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_THE_MIDDLE, params, *inputs], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    num_kept = len(list(elsewhere.parts.glob("*/measured-*.json")))

    measured: list[int] = []
    measure = units.measure_unit

    def noted(model: Any, unit: units.Unit, *others: Any) -> Any:
        measured.append(unit.number)
        return measure(model, unit, *others)

    monkeypatch.setattr(units, "measure_unit", noted)
    resumed = elsewhere.evaluate(published=("yarn", "longlora"))
    assert num_kept >= 5
    assert len(measured) == max(measured) + 1 - num_kept, "what was finished is not measured again"
    assert resumed.manifest == evaluation.manifest, "digest and the hash of every file"


def test_without_a_checkpoint_what_needs_no_training_is_measured(tiny_run: TinyRun) -> None:
    asked = tiny_run.changed(rope_methods=("linear", "yarn", "longrope", "dynamic"))
    arms = choose_arms(asked, has_checkpoint=False)
    assert arms.names == ("base", "scaling_only", "base_linear", "base_dynamic")
    assert arms.left_out["base_yarn"] == "scaling_only is the same model"
    assert "rope_factors_file" in arms.left_out["base_longrope"]
    assert arms.left_out["fine_tuned"] == "there is no checkpoint"
    with pytest.raises(UserError, match="no checkpoint"):
        tiny_run.evaluate(tuned=False, arms=("fine_tuned",))


def test_longrope_is_compared_with_methods_that_take_no_factors(tiny_run: TinyRun, tmp_path: Path) -> None:
    factors = tmp_path / "factors.json"
    factors.write_text(json.dumps({name: [2.0] * 4 for name in ("short_factor", "long_factor")}))
    asked = tiny_run.changed(rope_methods=("longrope", "yarn", "ntk"))
    for main in ("yarn", "longrope"):
        model = asked.model.model_copy(update={"rope_method": main, "rope_factors_file": str(factors)})
        arms = choose_arms(asked.model_copy(update={"model": model}), has_checkpoint=True)
        assert set(arms.names[3:]) == {"base_longrope", "base_yarn", "base_ntk"} - {f"base_{main}"}


def test_models_are_also_measured_as_they_are_served_where_that_differs(tiny_run: TinyRun) -> None:
    arms = choose_arms(tiny_run.params, has_checkpoint=True)
    assert arms.names == ("base", "scaling_only", "fine_tuned")
    assert "yarn scales prompts of every length alike" in arms.as_served_note
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
    switching = plan_rope(load_config(tiny_run.params.model), 256, "longrope", factors=factors, packed_rows=False)
    assert served_arms(switching, arms.names) == (("scaling_only_as_served", "fine_tuned_as_served"), "")
    assert served_arms(switching, ("base", "scaling_only")) == (("scaling_only_as_served",), "")
    assert choose_arms(tiny_run.changed(as_served=False), has_checkpoint=True).as_served_note == ""


def test_a_quantised_base_is_measured_as_it_was_trained(tiny_run: TinyRun) -> None:
    training = tiny_run.params.training.model_copy(update={"base_precision": "nf4"})
    params = tiny_run.params.model_copy(update={"training": training})
    assert choose_arms(params, has_checkpoint=True).names == ("base", "scaling_only", "fine_tuned", "fine_tuned_quantised")
    assert choose_arms(params, has_checkpoint=False).names == ("base", "scaling_only")


@pytest.mark.slow
def test_depth_distance_and_number_of_facts_of_every_prompt_are_kept(tiny_run: TinyRun, tmp_path: Path) -> None:
    tasks = ("facts_in_text", "associative_needle", "graph_walk", "spaced_evidence")
    longer = tiny_run.params.model_copy(update={"model": tiny_run.params.model.model_copy(update={"target_length": 512})})
    evaluation = replace(tiny_run.elsewhere(tmp_path), params=longer).evaluate(
        tuned=False, arms=("base",), lengths=(64,), tasks=tasks, task_lengths=(512,), num_samples=3, position_curve=False
    )
    rows = Samples.read(evaluation.path).task.to_pylist()
    assert {row["task"] for row in rows} == set(tasks)
    assert {row["num_evidence"] for row in rows if row["task"] == "facts_in_text"} == {1, 2, 3}
    for row in rows:
        is_spaced = row["task"] == "spaced_evidence" or (row["task"] == "facts_in_text" and row["num_evidence"] > 1)
        assert (row["distance"] is not None) == is_spaced
        assert row["control_logprob"] is not None
    report = read_report(evaluation.path / "report.json")
    assert {(row.task, row.num_evidence, row.distance) for row in report.spacing if row.task != "graph_walk"} == {
        ("facts_in_text", 1, None), ("facts_in_text", 2, 0.25), ("facts_in_text", 3, 0.25),
        ("spaced_evidence", 2, 0.0), ("spaced_evidence", 2, 1.0),
    }  # fmt: skip
    assert recompute(evaluation.path, tmp_path / "again").spacing == report.spacing


@pytest.mark.slow
def test_each_rope_method_is_a_model_of_its_own(tiny_run: TinyRun, tmp_path: Path) -> None:
    evaluation = tiny_run.elsewhere(tmp_path).evaluate(
        tuned=False, arms=("base",), rope_methods=("linear", "dynamic"), lengths=(256,), num_documents=2, tasks=()
    )
    rows = Samples.read(evaluation.path).perplexity.to_pylist()
    assert [row["arm"] for row in rows[::2]] == ["base", "base_linear", "base_dynamic"]
    assert len({row["nll"] for row in rows}) == 6


def test_a_corpus_too_short_for_the_target_is_named(tiny_run: TinyRun) -> None:
    with pytest.raises(UserError, match=r"Only 0 held-out document\(s\) have at least 100000 tokens"):
        tiny_run.evaluate(lengths=(100_000,))


def test_benchmarks_without_the_harness_are_refused_before_anything_else(tiny_run: TinyRun) -> None:
    if lm_eval.importlib.util.find_spec("lm_eval"):
        pytest.skip("lm-evaluation-harness is installed")
    with pytest.raises(UserError, match="pip install lm-eval"):
        tiny_run.evaluate(lm_eval_tasks=("hellaswag",))
    assert tiny_run.told == []


def test_benchmarks_on_models_that_are_not_measured_are_refused(tiny_run: TinyRun) -> None:
    with pytest.raises(UserError, match="run on base and fine_tuned, and neither is measured"):
        tiny_run.evaluate(tuned=False, arms=("scaling_only",), lm_eval_tasks=("hellaswag",))


def test_what_was_trained_on_is_not_evaluated(tiny_run: TinyRun, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))

    def build(kind: str, make: Any, **parents: str) -> Artifact:
        return storage.build(kind, stage=kind, params={}, code_version=1, parents=parents, make=make)

    shards = build("shards", lambda folder: write_chunks(folder, trained_on="d3"))
    checkpoint = build("checkpoints", lambda folder: {}, shards=shards.digest)
    assert training_documents(shards) == {"d3"}
    assert (
        refuse_trained_on({"d1", "d2"}, checkpoint, storage) == "checked"
    )  # d1 stands among the held-out chunks, which is as it should be
    with pytest.raises(UserError, match=r"1 of the 2 documents to be evaluated were trained on \(such as d3\)"):
        refuse_trained_on({"d1", "d3"}, checkpoint, storage)
    with pytest.raises(UserError, match="were trained on"):
        stage.run(tiny_run.params, storage, tiny_run.documents, checkpoint, print)


def test_no_haystack_was_trained_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    """d3 is not among the documents of the perplexity, but its text surrounds needles."""
    storage = Storage(str(tmp_path))

    def build(kind: str, make: Any, **parents: str) -> Artifact:
        return storage.build(kind, stage=kind, params={}, code_version=1, parents=parents, make=make)

    params = tiny_run.changed(num_documents=1, task_lengths=(4096,))
    workload = prepare_workload(params, 128, tiny_run.documents.path, load_tokenizer(params.model))
    (haystack, *_) = sorted(workload.doc_ids - {document.doc_id for document in workload.documents})
    shards = build("shards", lambda folder: write_chunks(folder, trained_on=haystack))
    checkpoint = build("checkpoints", lambda folder: {}, shards=shards.digest)
    with pytest.raises(UserError, match=rf"were trained on \(such as {haystack}\)"):
        stage.run(params, storage, tiny_run.documents, checkpoint, print)


@pytest.mark.slow
def test_the_report_says_whether_it_was_checked_what_was_trained_on(
    tiny_run: TinyRun, evaluation: Artifact, tmp_path: Path
) -> None:
    assert stage.load_report(evaluation).settings.trained_on_check == "checked"
    short: dict[str, Any] = {"lengths": (64,), "num_documents": 2, "tasks": ()}
    elsewhere = tiny_run.elsewhere(tmp_path)  # where there are no shards
    said = stage.load_report(elsewhere.evaluate(arms=("fine_tuned",), **short)).settings.trained_on_check
    assert said.startswith("not checked: the shards that the checkpoint was trained on")
    assert said.endswith("are no longer in the storage")
    assert f"evaluate: whether these documents were trained on is {said}" in elsewhere.told
    untrained = stage.load_report(elsewhere.evaluate(tuned=False, arms=("base",), **short))
    assert untrained.settings.trained_on_check == "no checkpoint"
