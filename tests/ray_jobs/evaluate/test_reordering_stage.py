"""The comparison of reorder strategies as a part of the stage: its rows, its resume, its workers, and where it is left out."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data_schemas.parts import Parts
from data_schemas.storage import Artifact
from ray_jobs.evaluate import evaluation_stage as stage
from ray_jobs.evaluate import reordering
from ray_jobs.evaluate.workload import KeptWorkload, prepare_workload, write_workload
from tasks.evaluate.report.result_files import recompute
from tasks.evaluate.sample_set import Samples
from tasks.evaluate.statistics.reorder_choice import choose_default
from tasks.model.base_model import load_tokenizer
from tests.ray_jobs.evaluate.evaluation_example import TinyRun, make_tiny_run, write_questions

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> TinyRun:
    folder = tmp_path_factory.mktemp("tiny")
    run = make_tiny_run(folder, tokenizer)
    changed = {
        "qa_file": write_questions(folder),
        "reorder_samples": 6,
        "lengths": (192, 256),
        "num_documents": 2,
        "tasks": (),
    }
    run.params = run.changed(arms=("fine_tuned",), batch_tokens=256, **changed)
    return run


@pytest.fixture(scope="module")
def evaluation(tiny_run: TinyRun) -> Artifact:
    return tiny_run.evaluate()


@pytest.mark.slow
def test_every_question_is_asked_under_every_order_and_decides(tiny_run: TinyRun, evaluation: Artifact, tmp_path: Path) -> None:
    samples = Samples.read(evaluation.path)
    rows = samples.reorder.to_pylist()
    strategies = ("none", "important_first_last", "reverse_rank", "random")
    asked = {(row["length"], row["sample"]) for row in rows}
    assert {length for length, _ in asked} == {192, 256}
    assert len({sample for _, sample in asked}) == 6
    assert {(*key, s) for key in asked for s in strategies} == {(r["length"], r["sample"], r["strategy"]) for r in rows}
    assert len(rows) == len(asked) * len(strategies)
    assert {row["mode"] for row in rows} == {"forced", "generated"}
    for row in rows:
        assert sorted(row["order"]) == list(range(1, len(row["order"]) + 1))
        assert row["prompt_tokens"] <= row["length"]
    equal_prompts = {(row["length"], row["prompt_hash"], row["logprob"]) for row in rows}
    assert len(equal_prompts) == len({(row["length"], row["prompt_hash"]) for row in rows}), "one prompt, one measurement"
    assert len({row["logprob"] for row in rows}) > len(asked), "other orders, other log-probabilities"

    report = stage.load_report(evaluation)
    decision = report.reorder_decision
    assert decision == choose_default(rows)
    assert report.reorder is not None
    assert report.reorder.calibrated == "No recall by position was measured, so important_first_last is used."
    assert evaluation.manifest.summary["reorder_strategy"] == decision.strategy
    assert recompute(evaluation.path, tmp_path / "again") == report
    assert not list(tiny_run.parts.glob("*")), "parts of a finished stage are dropped"


def test_what_is_kept_among_the_parts_is_what_was_made(tiny_run: TinyRun, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_run.params.model)
    workload = prepare_workload(tiny_run.params, 128, tiny_run.documents.path, tokenizer)
    write_workload(workload, Parts(str(tmp_path)))
    for length in (192, 256):
        kept = KeptWorkload(Parts(str(tmp_path))).questions_of(length)
        made = workload.questions_of(length)
        hashes = [[q.prompt(range(1, len(q.passages) + 1), tokenizer).prompt_hash for q in of] for of in (kept, made)]
        assert hashes[0] == hashes[1]


KILLED_BETWEEN_ORDERS = """
import os, signal, sys
import torch
from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from ray_jobs.evaluate import reordering, evaluation_stage as stage

torch.set_num_threads(1)
params, inputs, root, documents, checkpoint = sys.argv[1:]
measure, done = reordering.reorder_rows, []

def killed_at_the_second_unit(*args):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(True)
    return measure(*args)

reordering.reorder_rows = killed_at_the_second_unit
inputs = Storage(inputs)
stage.run(PipelineParams.model_validate_json(params), Storage(root), inputs.find("documents", documents),
          inputs.find("checkpoints", checkpoint), print)
"""


@pytest.mark.slow
def test_a_run_killed_between_orders_goes_on_there_with_the_same_bytes(
    tiny_run: TinyRun, evaluation: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_run.storage.root / "shards", tmp_path / "shards")
    inputs = (str(tiny_run.storage.root), str(tmp_path), tiny_run.documents.digest, tiny_run.checkpoint.digest)
    command = [sys.executable, "-c", KILLED_BETWEEN_ORDERS, tiny_run.params.model_dump_json(), *inputs]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    elsewhere = tiny_run.elsewhere(tmp_path)
    assert len(list(elsewhere.parts.glob("*/reordered-*.json"))) == 1

    measured: list[int] = []
    measure = reordering.reorder_rows

    def noted(model: Any, questions: Any, *others: Any) -> Any:
        measured.append(len(questions))
        return measure(model, questions, *others)

    monkeypatch.setattr(reordering, "reorder_rows", noted)
    resumed = elsewhere.evaluate()
    num_questions = len({(r["length"], r["sample"]) for r in Samples.read(evaluation.path).reorder.to_pylist()})
    assert 0 < sum(measured) < num_questions, "what was finished is not measured again"
    assert resumed.manifest == evaluation.manifest


@pytest.mark.slow
def test_where_no_passages_fit_the_run_goes_on_and_says_so(tiny_run: TinyRun, tmp_path: Path) -> None:
    elsewhere = tiny_run.elsewhere(tmp_path)
    report = stage.load_report(elsewhere.evaluate(qa_file=None, lengths=(256,)))
    assert report.reorder is not None
    assert report.reorder.decision is None
    assert report.reorder.reason == "256 tokens do not hold 8 passages with a fact each"
    assert "evaluate: reorder strategies are not compared: 256 tokens do not hold 8 passages" in "\n".join(elsewhere.told)


@pytest.mark.slow
def test_without_the_published_model_nothing_is_compared(tiny_run: TinyRun, tmp_path: Path) -> None:
    other = tiny_run.elsewhere(tmp_path).evaluate(tuned=False, arms=("base",), lengths=(192,))
    assert len(Samples.read(other.path).reorder) == 0
    section = stage.load_report(other).reorder
    assert section is not None
    assert section.reason == "it was not asked for"
