"""Published tasks go through the stage: measured rows, the authors' scores, and a report that its rows give again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.evaluate import evaluation_stage as stage
from ray_jobs.preflight import refuse_unaskable
from tasks.evaluate.published import key_tokens
from tasks.evaluate.published.names import RULER_PUBLISHED
from tasks.evaluate.published.scores import score_published
from tasks.evaluate.report.result_files import recompute
from tasks.evaluate.sample_set import Samples
from tests.ray_jobs.evaluate.evaluation_example import TinyRun, make_tiny_run
from tests.tasks.evaluate.published.authors import FACTS, asked, word_tokenizer
from tests.tasks.evaluate.published.conftest import punkt  # noqa: F401


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> TinyRun:
    return make_tiny_run(tmp_path_factory.mktemp("published"), tokenizer)


@pytest.fixture(scope="module")
def run_in_words(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """With a tokenizer that RULER's example fits: a token a word."""
    made = make_tiny_run(tmp_path_factory.mktemp("words"), word_tokenizer())
    longer = made.params.model.model_copy(update={"target_length": 1000})
    return replace(made, params=made.params.model_copy(update={"model": longer}))


def ask(*published: str, **data: str) -> dict[str, Any]:
    evaluation = asked(*published, num_samples=1, **data)
    return {name: getattr(evaluation, name) for name in ("published", "published_data", "published_samples")}


@pytest.mark.slow
def test_ruler_and_lost_in_the_middle_have_rows_and_recompute(run_in_words: TinyRun, tmp_path: Path) -> None:
    folder = tmp_path / "middle"
    folder.mkdir()
    shutil.copy(FACTS / "middle" / "nq-open-10_total_documents_gold_at_4.jsonl.gz", folder)
    asking = ask("ruler", "lost_in_the_middle", lost_in_the_middle=str(folder))
    found = run_in_words.evaluate(
        tuned=False, arms=("base",), tasks=(), reorder_samples=0, task_lengths=(1000,), batch_tokens=8192, **asking
    )
    rows = Samples.read(found.path).task.to_pylist()
    assert [row["task"] for row in rows] == [*RULER_PUBLISHED, "lost_in_the_middle_qa_10"]
    for row in rows:
        assert row["mode"] == "generated"
        assert row["score"] == score_published(row["task"], row["output"], row["golds"])
    report = stage.load_report(found)
    assert report.effective_context_length.ruler.tasks == RULER_PUBLISHED
    assert recompute(found.path, tmp_path / "again") == report
    assert set(report.settings.published_data) == {
        "essays",
        "squad",
        "hotpotqa",
        "nq-open-10_total_documents_gold_at_4.jsonl.gz",
    }
    assert str(tmp_path) not in (found.path / "settings.json").read_text()


@pytest.mark.slow
def test_longppl_with_an_evaluator_of_its_own(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_tokens, "LEAST_GAIN", -100.0)
    monkeypatch.setattr(key_tokens, "MOST_LOSS", 100.0)
    monkeypatch.setattr("ray_jobs.evaluate.published_work.SHORT_CONTEXT", 48)
    monkeypatch.setattr("ray_jobs.evaluate.key_tokens.find_key_spans.__kwdefaults__", {"short": 48, "step": 24})
    found = tiny_run.evaluate(
        tuned=False, arms=("base",), tasks=(), **ask("longppl", longppl_evaluator=tiny_run.params.model.base)
    )
    rows = Samples.read(found.path).protocol.to_pylist()
    assert {(row["protocol"], row["length"]) for row in rows} == {("longppl", n) for n in (64, 128, 256)}
    report = stage.load_report(found)
    assert [row.length for row in report.protocols] == [64, 128, 256]


def test_what_is_missing_is_said_before_any_work(tiny_run: TinyRun) -> None:
    def params(*published: str, **data: str | None) -> PipelineParams:
        evaluation = {"published": published, "published_data": data}
        raw = tiny_run.params.model_dump(mode="json")
        return PipelineParams.model_validate(raw | {"evaluation": raw["evaluation"] | evaluation})

    with pytest.raises(UserError, match=r"ruler, which needs evaluation\.published_data\.essays: give .*, or leave ruler out"):
        refuse_unaskable(params("ruler"))
    with pytest.raises(UserError, match=r"published_data\.squad /nowhere does not exist"):
        refuse_unaskable(params("ruler", essays=str(FACTS / "essays.json"), squad="/nowhere", hotpotqa="x"))
    with pytest.raises(UserError, match="longppl, which needs"):
        refuse_unaskable(params("longppl"))
    with pytest.raises(UserError, match="no file of the authors' names"):
        refuse_unaskable(params("lost_in_the_middle", lost_in_the_middle=str(FACTS.parent.parent / "golden")))
