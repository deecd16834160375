"""`ropeway plan` and `ropeway compare-rope` as a user meets them: real processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.flows.small_run import small_params, write_params

ROPEWAY = str(Path(sys.executable).parent / "ropeway")


def ropeway(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROPEWAY, *arguments], capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> str:
    home = tmp_path_factory.mktemp("plan")
    return write_params(home / "small.yaml", small_params(home, tokenizer))


def test_compare_then_plan(config: str) -> None:
    compared = ropeway("compare-rope", config, "--documents", "3")
    assert compared.returncode == 0, compared.stderr
    for method in ("yarn", "linear", "dynamic", "ntk", "llama3", "none", "left out: longrope"):
        assert method in compared.stdout
    *_, picture, folder = compared.stdout.split()
    assert Path(picture).is_file()
    assert Path(folder, "rope_samples.parquet").is_file()
    planned = ropeway("plan", config, "--tflops", "0.001", "--budget-hours", "0")
    assert planned.returncode == 0, planned.stderr
    for words in ("64 -> 128", "0.001 TFLOP/s", "largest micro batch", "activations", "optimizer", "Corpus:"):
        assert words in planned.stdout
    assert "0 h are given" in planned.stdout
    assert "cut in any case" in planned.stdout  # documents of some 600 tokens for a target of 128
    assert "Traceback" not in planned.stderr


def test_a_gpu_is_planned_without_one(config: str) -> None:
    planned = ropeway("plan", config, "--set", "ray.use_gpu=true", "--set", "training.precision=bf16", "--gpu-memory", "24")
    assert planned.returncode == 0, planned.stderr
    for words in ("24 GB", "give --tflops", "not measured", "Corpus:"):
        assert words in planned.stdout
    small = ropeway("plan", config, "--set", "ray.use_gpu=true", "--gpu-memory", "0.5", "--tflops", "1")
    assert "not one row" in small.stdout.replace("\n", " ")


def test_what_cannot_be_served_as_asked_is_one_sentence(config: str) -> None:
    refused = ropeway("plan", config, "--set", "model.rope_method=dynamic", "--set", 'model.serve_with=["vllm"]')
    assert refused.returncode == 2
    assert "choose yarn or ntk" in refused.stderr
    assert "Traceback" not in refused.stderr
