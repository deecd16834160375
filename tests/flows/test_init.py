"""`ropeway init`: few questions, and a file that runs."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from data_schemas.devices import Gpu
from data_schemas.errors import UserError
from flows.check_inputs import check_inputs
from flows.commands.init import SCHEMA_NAME, write_config
from flows.config import PRESETS, load_config
from flows.new_config import CorpusSeen, far_extension, fitting_steps, usual_name, usual_target
from flows.params_schema import params_schema
from tests.flows.small_run import write_base, write_corpus
from tests.waiting import HANGS_AFTER_S

ROPEWAY = str(Path(sys.executable).parent / "ropeway")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("init")
    write_base(folder / "base", tokenizer)
    write_corpus(folder / "corpus")
    return folder


class Answers:
    """Answers in turn; an empty one takes the default."""

    def __init__(self, *answers: str) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self._answers = iter(answers)

    def __call__(self, question: str, default: str | None) -> str:
        self.asked.append((question, default))
        answer = next(self._answers) or default
        assert answer is not None, question
        return answer


def test_five_questions_make_a_file_that_runs(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = Answers(str(home / "base"), str(home / "corpus"), "", "0.001", "")
    written = write_config(None, None, None, None, None, answers)
    assert [default for _, default in answers.asked] == ["demo", None, "256", "1", "base-256.yaml"]
    text = written.read_text()
    params = load_config(str(written))
    check_inputs(params)
    assert (params.model.target_length, params.training.steps, params.evaluation.lengths) == (256, 10, (64, 128, 256))
    assert text.startswith(f"# yaml-language-server: $schema=./{SCHEMA_NAME}\n")
    for said in (
        "Estimated training time: at most about",
        "Estimated memory: ",
        "# works up to 64 tokens",
        "15 files",
        "on this machine",
    ):
        assert said in text
    assert "ropeway run base-256.yaml" in capsys.readouterr().out
    jsonschema.validate(yaml.safe_load(text), json.loads((tmp_path / SCHEMA_NAME).read_text()))


def test_nothing_is_overwritten_or_written_in_vain(home: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.yaml"
    there.write_text("mine")
    given = {"corpus": str(home / "corpus"), "target_length": 128, "hours": 1.0, "output": there, "ask": Answers()}
    with pytest.raises(UserError, match="exists already"):
        write_config(str(home / "base"), **given)
    assert there.read_text() == "mine"
    with pytest.raises(UserError, match="no base model folder"):
        write_config("/nowhere/at/all", **given | {"output": tmp_path / "new.yaml"})
    with pytest.raises(UserError, match="is not a number"):
        write_config(str(home / "base"), **given | {"target_length": None, "ask": Answers("many")})
    assert list(tmp_path.iterdir()) == [there]


@pytest.mark.slow
def test_without_a_terminal_the_usual_answers_are_taken(home: Path, tmp_path: Path) -> None:
    def ropeway(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROPEWAY, *arguments], capture_output=True, text=True, cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=HANGS_AFTER_S
        )

    refused = ropeway("init", str(home / "base"))
    assert (refused.returncode, "give MODEL and CORPUS" in refused.stderr) == (2, True)
    done = ropeway("init", str(home / "base"), str(home / "corpus"), "--hours", "0.001")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base-256.yaml", SCHEMA_NAME]


def test_gpus_are_used(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cards = (Gpu("NVIDIA H200", 150 * 10**9, (9, 0)),) * 3
    for module in ("flows.new_config", "flows.commands.init", "data_schemas.precision", "ray_jobs.machine_checks"):
        monkeypatch.setattr(f"{module}.gpus", lambda: cards)
    for module in ("flows.new_config", "ray_jobs.machine_checks"):
        monkeypatch.setattr(f"{module}.num_cpus", lambda: 16)
    written = write_config(str(home / "base"), str(home / "corpus"), 2176, 1.0, tmp_path / "a.yaml", Answers())
    assert "2,176 tokens are 34 times the base's window." in capsys.readouterr().out
    params = load_config(str(written))
    assert (params.ray.num_workers, params.ray.use_gpu, params.training.rows_per_step) == (3, True, 9)
    assert params.training.precision == "bf16"
    assert "# bf16 on this machine" in written.read_text()


def test_what_is_chosen() -> None:
    seen = CorpusSeen(num_files=3, num_bytes=40_000_000, largest_bytes=40_000)
    assert usual_target(2048, seen.longest_tokens) == 8192
    assert usual_target(4096, seen.longest_tokens) == 8192
    assert far_extension(2048, 32 * 2048) == ""
    assert far_extension(2048, 33 * 2048) == (
        "67,584 tokens are 33 times the base's window. Up to 16 times was measured, and Ropeway is made for up to 32 times: lower "
        "model.target_length to at most 65,536, or extend in steps with training.stages."
    )
    assert usual_name("org/Llama-3.2 1B/", 32768) == "Llama-3.2-1B-32k"
    assert usual_name("base", 5000) == "base-5000"
    assert fitting_steps(None, 1, seen, 8192, 4) == 305, "one pass over ten million tokens"
    assert fitting_steps(60.0, 2, seen, 8192, 4) == 120
    assert fitting_steps(1e6, 1, seen, 8192, 4) == 10
    assert fitting_steps(None, 1, seen, 64, 1) == 1000


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_schema_takes_the_presets_and_refuses_mistakes(preset: Path) -> None:
    schema, right = params_schema(), yaml.safe_load(preset.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(right, schema)
    for wrong in (right | {"trainning": {}}, right | {"training": {"steps": 0}}, right | {"training": {"precision": "fp8"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
