"""The scripts for GPU machines, tried on the CPU with a tiny model: they go on where they stopped, and record what cannot run."""

import json

import pytest
import torch

from benchmarks.gpu_parity import compare, lengths_of
from benchmarks.gpu_training import main


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return tmp_path_factory.mktemp("bases")


def throughput(tmp_path, bases, *more):
    results = tmp_path / "results.json"
    arguments = ["--models", "tiny", "--lengths", "128", "--steps", "1", "--bases", str(bases), "--cpu"]
    code = main(["throughput", "--json", str(results), *arguments, *more])
    return code, json.loads(results.read_text()) if results.exists() else None


def test_throughput_measures_what_is_missing_and_nothing_twice(tmp_path, bases, capsys):
    code, first = throughput(tmp_path, bases, "--variants", "s2")
    assert code == 0
    code, second = throughput(tmp_path, bases, "--variants", "s2", "full", "s2-adamw-8bit", "full-tuning")
    assert code == 0
    assert second["cases"]["tiny/128/s2"] == first["cases"]["tiny/128/s2"]
    assert second["cases"]["tiny/128/full"]["tokens_per_s"] > 0
    assert second["cases"]["tiny/128/full-tuning"]["weights_bytes"] > 0
    assert "adamw_8bit needs" in second["cases"]["tiny/128/s2-adamw-8bit"]["failed"]
    assert "1.0x" in capsys.readouterr().out  # full beside itself


def test_throughput_starts_nothing_after_its_time(tmp_path, bases):
    throughput(tmp_path, bases, "--variants", "s2")
    code, record = throughput(tmp_path, bases, "--variants", "s2", "full", "--limit-s", "-1")
    assert code == 3
    assert list(record["cases"]) == ["tiny/128/s2"]


def test_results_of_another_machine_are_not_mixed_in(tmp_path, bases):
    _, record = throughput(tmp_path, bases, "--variants", "s2")
    record["machine"]["device"] = "another"
    (tmp_path / "results.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="holds results of another"):
        throughput(tmp_path, bases, "--variants", "full")
    with pytest.raises(SystemExit, match="unknown: s3"):
        throughput(tmp_path, bases, "--variants", "s3")


@pytest.mark.parametrize("pattern", ["s2", "full", "window"])
def test_parity_is_within_the_rounding_of_float32(pattern):
    errors = compare("sdpa", torch.float32, 16, pattern, (4, 2), 128, torch.device("cpu"))
    assert 0 < max(errors) < 1e-5
    assert sum(lengths_of(128)) == 128
