"""`ropeway doctor` on this machine and on machines that lack something."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_schemas.devices import Gpu
from data_schemas.params import PipelineParams
from flows.commands import doctor
from flows.commands.doctor import Mark, findings, show_findings
from flows.config import load_config
from tests.waiting import HANGS_AFTER_S

ROPEWAY = str(Path(sys.executable).parent / "ropeway")


@pytest.fixture
def demo(tmp_path: Path) -> PipelineParams:
    return load_config("demo", [f"storage={tmp_path / 'storage'}"])


def found(params: PipelineParams | None) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in findings(params)}


def changed(params: PipelineParams, group: str, **values: Any) -> PipelineParams:
    return params.model_copy(update={group: getattr(params, group).model_copy(update=values)})


@pytest.mark.slow
def test_about_ten_lines_with_marks(tmp_path: Path) -> None:
    done = subprocess.run([ROPEWAY, "doctor"], capture_output=True, text=True, cwd=tmp_path, timeout=HANGS_AFTER_S)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert 8 <= len(lines) <= 12
    assert all(line[0] in "✓!+" for line in lines)
    for said in (
        "processors",
        "training.precision auto is",
        "training.s2_executor auto is sdpa",
        "loss_kernel auto is",
        "free for storage",
    ):
        assert said in done.stdout
    assert not list(tmp_path.iterdir()), "it writes nothing"


def test_every_auto_of_a_run_is_said(demo: PipelineParams) -> None:
    lines = found(demo)
    assert lines["model"].found == (
        "demo, 512 -> 2048 tokens; model.rope_method yarn is yarn; training.full_attention_layers auto is 1 of 4 layers"
    )
    assert lines["run"].mark is Mark.OK, lines["run"]


def test_what_is_broken_is_marked(
    demo: PipelineParams, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    wrong = changed(changed(demo, "ray", use_gpu=True), "training", s2_executor="flash_attn")
    lines = found(wrong)
    assert lines["ports"].mark is Mark.BROKEN
    assert "does not answer" in lines["ports"].found
    assert lines["GPU"].mark is Mark.BROKEN
    assert lines["precision"].found == "training.precision auto is not known: ray.use_gpu is set, and no GPU is visible here"
    assert "the package flash_attn is not installed" in lines["attention"].found
    assert "no GPU is visible on this machine" in lines["run"].found
    assert not show_findings(wrong)
    assert "✗ GPU" in capsys.readouterr().out


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpus", lambda: (Gpu("NVIDIA H200", 150 * 10**9, (9, 0)),))
    assert found(None)["GPU"].found.startswith("NVIDIA H200 with 150.00 GB, but the installed torch cannot use it")


def test_bf16_is_noted_where_it_is_slow(demo: PipelineParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_schemas.precision.cpu_computes_bf16", lambda: False)
    assert found(changed(demo, "training", precision="bf16"))["precision"].found.startswith("bf16 is set and slow here")
    of_fp32 = found(changed(demo, "training", precision="fp32"))["precision"].found
    assert of_fp32 == "training.precision auto is fp32: the processor lacks instructions for bfloat16"


def test_a_terminal_without_unicode_gets_letters() -> None:
    assert [mark.shown("ascii") for mark in Mark] == ["+", "!", "x"]
    assert [mark.shown("utf-8") for mark in Mark] == ["✓", "!", "✗"]
