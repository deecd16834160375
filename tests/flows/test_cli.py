"""The command line as a user meets it: real processes, exit codes, sentences."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_schemas.params import PipelineParams
from tasks.publish.reorder_config import make_config
from tasks.reorder.config import to_json
from tests import PYTHONPATH
from tests.waiting import HANGS_AFTER_S

ROPEWAY = str(Path(sys.executable).parent / "ropeway")

COMMANDS = [
    "demo", "init", "schema", "params", "run", "doctor", "plan", "compare-rope", "search-rope", "prepare", "inspect", "finetune",
    "evaluate", "advise", "publish", "verify", "releases", "rollback", "reorder", "automate", "serve", "stop",
]  # fmt: skip
_PARAMS = {"run_name": "a", "corpus": {"sources": ["x"]}, "model": {"base": "demo", "target_length": 2048}}
REORDER_CONFIG = to_json(make_config(PipelineParams.model_validate(_PARAMS), []))


def ropeway(*arguments, cwd=None):
    return subprocess.run([ROPEWAY, *arguments], capture_output=True, text=True, cwd=cwd, timeout=HANGS_AFTER_S)


def test_what_answers_a_run_with_nothing_to_do_loads_nothing_heavy():
    code = (
        "import sys, flows.cli, flows.chain, flows.finished\n"
        "sys.exit(str({'torch', 'transformers', 'ray', 'prefect', 'spacy', 'matplotlib', 'scipy'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_help_names_every_command_without_loading_anything_heavy():
    code = (
        "import sys; sys.argv = ['ropeway', '--help']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'ray', 'prefect', 'pyarrow', 'spacy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_the_parameters_of_a_group_are_listed():
    listed = ropeway("params", "training.lora_").stdout.splitlines()
    assert [line.split()[0] for line in listed if line[2] != " "] == [
        "training.lora_rank", "training.lora_alpha", "training.lora_dropout", "training.lora_targets",
    ]  # fmt: skip
    assert ropeway("params", "trainning").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["demo", "--output", "x"], "--output says where --from-samples writes"),
        (["--from-samples", "x", "--set", "a=b"], "--set has no effect on it"),
        ([], "Give either a CONFIG"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, sentence):
    done = ropeway("evaluate", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    done = ropeway(command, "--help")
    assert done.returncode == 0
    assert "Usage: ropeway" in done.stdout


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["model.base=/nowhere/at/all"], "no base model folder /nowhere/at/all"),
        (["corpus.sources=[\"/nowhere/texts\"]"], "/nowhere/texts"),
        (["training.learning_rate=-1"], "training.learning_rate"),
        (["trainning.steps=1"], "trainning: no such parameter"),
        (["model.target_length=512", "evaluation.lengths=[256,512]"], "512"),
        (["storage=ftp://host/x"], "storage"),
        (['evaluation.lm_eval_tasks=["arc_easy"]'], "lm-evaluation-harness"),
        (['evaluation.tasks=["document_qa"]', "evaluation.qa_file=/nowhere/questions.jsonl"], "evaluation.qa_file"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_wrong_parameter_is_one_sentence_and_status_2(tmp_path, settings, sentence):
    done = ropeway("run", "demo", *(x for s in (f"storage={tmp_path}", *settings) for x in ("--set", s)))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("ropeway:")]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_plan_says_what_a_run_would_do():
    done = ropeway("plan", "demo")
    assert done.returncode == 0, done.stderr
    for expected in ("yarn", "512 -> 2048", "groups of 512", "trained weights"):
        assert expected in done.stdout


def test_reorder_prints_the_passages_in_prompt_order(tmp_path):
    (tmp_path / "chunk_reorder.json").write_text(REORDER_CONFIG)
    passages = tmp_path / "passages.jsonl"
    passages.write_text("".join(json.dumps({"text": f"p{rank}", "score": -rank}) + "\n" for rank in range(1, 6)))
    done = ropeway("reorder", "--config", str(tmp_path / "chunk_reorder.json"), str(passages))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["p1", "p3", "p5", "p4", "p2"]
    passages.write_text('{"text": "a"}\n{broken\n')
    broken = ropeway("reorder", "--config", str(tmp_path / "chunk_reorder.json"), str(passages))
    assert (broken.returncode, "2" in broken.stderr, "Traceback" in broken.stderr) == (2, True, False)


def test_reorder_keeps_a_budget_and_says_what_it_left_out(tmp_path):
    passages = tmp_path / "passages.jsonl"
    passages.write_text("".join(json.dumps({"text": f"p{rank}", "num_tokens": 10}) + "\n" for rank in range(1, 6)))
    (tmp_path / "chunk_reorder.json").write_text(REORDER_CONFIG)
    done = ropeway("reorder", "--config", str(tmp_path / "chunk_reorder.json"), str(passages), "--budget-tokens", "35")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["p1", "p3", "p2"]
    assert "2 passages do not fit 35 tokens" in done.stderr


@pytest.mark.slow
def test_verify_of_something_that_is_no_release_fails_without_a_traceback(tmp_path):
    assert ropeway("verify", str(tmp_path / "nothing")).returncode == 2
    empty = ropeway("verify", str(tmp_path))
    assert empty.returncode not in (0,)
    assert "Traceback" not in empty.stderr


def test_stop_needs_a_cluster_that_jobs_are_submitted_to():
    done = ropeway("stop", "demo")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "ray.address is local" in done.stderr


def test_a_search_for_a_target_within_the_window_is_refused_before_anything_heavy_is_loaded(tmp_path):
    model = '"model": {"base": "demo", "target_length": 512}'
    (tmp_path / "my.yaml").write_text(f'{{"run_name": "a", "corpus": {{"sources": ["x"]}}, {model}}}')
    code = (
        "import sys; sys.argv = ['ropeway', 'search-rope', 'my.yaml']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'transformers', 'ray', 'prefect'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stderr.splitlines()[-1] == (
        "ropeway: There is nothing to search: model.target_length 512 is within the base's 512 tokens; choose a longer target."
    )
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"training": {"stages": [{"target_length": 1024}, {"target_length": 2048}]}},
            "With training.stages, the factors of a stage",
        ),
        (
            {"model": {"base": "demo", "target_length": 2048, "rope_factors_file": "f.json"}},
            "model.rope_factors_file gives the factors",
        ),
    ],
)
def test_a_search_beside_stages_or_factors_is_refused_by_its_yaml_alone(tmp_path, changes, sentence):
    given = {"run_name": "a", "corpus": {"sources": ["x"]}, "model": {"base": "demo", "target_length": 2048}} | changes
    (tmp_path / "my.yaml").write_text(json.dumps(given))
    code = (
        "import sys; sys.argv = ['ropeway', 'search-rope', 'my.yaml']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'transformers', 'ray', 'prefect', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stderr.splitlines()[-1].startswith(f"ropeway: {sentence}")
    assert done.stdout.splitlines()[-1] == "set()"
