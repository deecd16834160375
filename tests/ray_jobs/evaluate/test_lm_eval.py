"""lm-evaluation-harness, really run offline where it is installed: on a task with data of its own, and on its RULER."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import EvaluationParams
from ray_jobs.evaluate import evaluation_stage as stage
from ray_jobs.evaluate.lm_eval import refuse_unavailable, task_metadata
from tests.ray_jobs.evaluate.evaluation_example import TinyRun, make_tiny_run
from tests.tasks.evaluate.published.authors import word_tokenizer

OWN_TASK = """\
task: bridge
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def test_ruler_gets_the_measured_lengths_and_the_tokenizer() -> None:
    evaluation = EvaluationParams.model_validate({"task_lengths": [2048, 512], "lengths": [256]})
    assert task_metadata(evaluation, (256,), "here") == {"max_seq_lengths": [512, 2048], "tokenizer": "here"}
    assert task_metadata(EvaluationParams(), (256, 512), "here")["max_seq_lengths"] == [256, 512]


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [{"question": f"A traveller pays {n} coin", "choices": ["s", " zebra"], "gold": 0} for n in range(4)]
    data = folder / "bridge.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    (folder / "bridge.yaml").write_text(OWN_TASK.format(data=data))
    return folder


@pytest.mark.slow
def test_a_task_with_data_of_its_own_runs_offline(
    own_tasks: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = make_tiny_run(tmp_path / "run", tokenizer)
    found = run.evaluate(
        tuned=False, arms=("base",), tasks=(), lm_eval_tasks=("bridge",), lm_eval_include=str(own_tasks), lm_eval_limit=3
    )
    (results,) = stage.load_report(found).settings.lm_eval.values()
    assert 0 <= results.results["bridge"]["acc,none"] <= 1
    assert str(tmp_path) not in (found.path / "settings.json").read_text()
    with pytest.raises(UserError, match="no task brigde"):
        refuse_unavailable(run.changed(lm_eval_tasks=("brigde",), lm_eval_include=str(own_tasks)).evaluation, ("base",))


@pytest.mark.slow
def test_the_harness_ruler_makes_prompts_of_the_measured_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("lm_eval")
    pytest.importorskip("wonderwords")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = _run_in_words(tmp_path)
    found = run.evaluate(tuned=False, arms=("base",), tasks=(), lm_eval_tasks=("ruler_fwe",), lm_eval_limit=2)
    (results,) = stage.load_report(found).settings.lm_eval.values()
    (task,) = results.results.values()
    assert list(task) == ["256,none"], "the measured length alone, and no -1 of other lengths"
    assert 0 <= task["256,none"] <= 1
    assert "truncat" not in caplog.text, "no prompt loses its start"


def _run_in_words(folder: Path) -> TinyRun:
    made = make_tiny_run(folder / "run", word_tokenizer())
    made.params = made.params.model_copy(
        update={"evaluation": made.params.evaluation.model_copy(update={"lengths": (256,), "position_curve": False})}
    )
    return made
