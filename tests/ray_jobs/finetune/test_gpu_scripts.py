"""The scripts for GPU machines, tried on the CPU with a tiny model: they go on where they stopped, and record what cannot run."""

import importlib.util
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_all, gpu_parity
from benchmarks.gpu_parity import FEWEST, Line, compare, lengths_of
from benchmarks.gpu_training import main
from benchmarks.throughput_cases import SHAPES, VARIANTS
from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.executors import EXECUTORS, obstacle, sdpa_segments
from ray_jobs.finetune.planning.measured import nearest, read_measured
from ray_jobs.finetune.segments import segment_batch


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


def test_a_case_that_fails_is_recorded_and_the_others_go_on(tmp_path, bases, monkeypatch):
    told = ["no compiler\nwas found", "CUDA error: an illegal memory access"]

    def measure(case, *_):
        if case.variant == "s2-sdpa":
            raise RuntimeError(told[0])
        return {"tokens_per_s": 1.0, "mfu": None, "peak_bytes": None, "executor": "attention computed by sdpa"}

    monkeypatch.setattr("benchmarks.throughput_cases.measure_case", measure)
    code, record = throughput(tmp_path, bases, "--variants", "s2-sdpa", "full")
    assert code == 0
    assert record["cases"]["tiny/128/s2-sdpa"] == {"failed": "RuntimeError: no compiler was found"}
    assert record["cases"]["tiny/128/full"]["tokens_per_s"] == 1
    (tmp_path / "results.json").unlink()
    told.pop(0)
    with pytest.raises(
        SystemExit, match=r"tiny/128/s2-sdpa: .*CUDA error.* No other case can run in this process: run the same again"
    ):
        throughput(tmp_path, bases, "--variants", "s2-sdpa", "full")
    assert throughput(tmp_path, bases, "--variants", "s2-sdpa", "full")[0] == 0


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


def test_all_in_one_call_gives_each_script_arguments_that_it_takes(tmp_path, bases, monkeypatch, capsys):
    """The scripts themselves are run; only the comparison of kernels is left out, which other tests do."""
    errors = [1e-7]

    def run(module, *arguments):
        assert importlib.util.find_spec(module)
        return sys.modules[module].main(list(arguments))

    line = Line("sdpa", "float32", 64, "s2", 1e-7, 1e-7, 1e-5)
    monkeypatch.setattr(gpu_parity, "measure", lambda *_: ([replace(line, output_error=errors[-1])], []))
    monkeypatch.setattr(gpu_all, "_run", run)
    asked = ["--out", str(tmp_path), "--cpu", "--models", "tiny", "--lengths", "128", "--steps", "1", "--tokens", "128"]
    assert gpu_all.main([*asked, "--variants", "s2"]) == 0
    assert list(json.loads((tmp_path / "throughput.json").read_text())["cases"]) == ["tiny/128/s2"]
    assert gpu_all.main([*asked, "--variants", "s2", "full", "--limit-s", "0"]) == 3
    (tmp_path / "parity.json").unlink()
    errors.append(1e-3)
    assert gpu_all.main([*asked, "--variants", "s2"]) == 1
    assert "A kernel is outside its tolerance" in capsys.readouterr().out
    assert set(gpu_all.VARIANTS) <= set(VARIANTS)
    assert {"smollm2-135m", "llama-1b"} <= set(SHAPES)
    assert min(lengths_of(FEWEST)) == 1
    with pytest.raises(SystemExit):
        gpu_parity.main(["--cpu", "--tokens", str(FEWEST - 1)])


def test_without_a_gpu_a_sentence_says_so_and_nothing_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cuda, told in (
        (None, "is a build for CPUs: install a build for your GPU."),
        ("12.8", "finds no GPU: see what nvidia-smi says"),
    ):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        assert gpu_all.main(["--out", str(tmp_path / "none")]) == 2
        said = capsys.readouterr().out
        assert told in said
        assert "Nothing was measured. To try the scripts on the CPU, add --cpu --models tiny --lengths 128." in said
    assert not (tmp_path / "none").exists()


def test_flash_attention_3_is_given_what_the_other_kernels_get(monkeypatch):
    """Its module exists on GPU machines alone; here a module with the same interface computes by segments."""
    assert "FlashAttention 3 is not installed" in obstacle("flash_attn_3", torch.device("cpu"), torch.bfloat16, 64)
    segments = segment_batch(torch.tensor([[*range(11), *range(9)]]), 6)

    def kernel(query, key, value, cu_q, cu_k, longest_q, longest_k, *, softmax_scale, causal, window_size):
        assert cu_q is cu_k
        assert cu_q.tolist() == list(segments.documents.bounds)
        assert (longest_q, longest_k, causal) == (11, 11, True)
        window = None if window_size == (-1, -1) else window_size[0] + 1
        return sdpa_segments(query, key, value, segments.documents, softmax_scale, 0.0, window), None

    monkeypatch.setitem(sys.modules, "flash_attn_interface", SimpleNamespace(flash_attn_varlen_func=kernel))
    query, key, value = (torch.randn(20, n, 8) for n in (4, 2, 2))
    for window in (None, 3):
        ours, theirs = (
            e(query, key, value, segments.documents, 0.3, window=window) for e in (EXECUTORS["flash_attn_3"], sdpa_segments)
        )
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="no attention dropout"):
        EXECUTORS["flash_attn_3"](query, key, value, segments.documents, 0.3, dropout=0.1)


def test_speeds_of_a_plan_come_from_a_measured_table(tmp_path):
    cases = {
        "llama-1b/8192/s2": {"mfu": 0.31, "weights_bytes": 3e9},
        "llama-8b/32768/s2": {"mfu": 0.25, "weights_bytes": 18e9},
        "llama-8b/32768/full": {"mfu": 0.40, "weights_bytes": 18e9},
        "llama-8b/65536/s2": {"failed": "does not fit the memory"},
    }
    table = tmp_path / "throughput.json"
    table.write_text(json.dumps({"machine": {"device": "NVIDIA H100 80GB HBM3"}, "cases": cases}))
    found = nearest(read_measured(table), TrainingParams(), 40_000, 16e9)
    assert (found.mfu, found.peak_flops) == (0.25, 989e12)
    assert found.describe() == "25% of a peak of 989 TFLOP/s, measured on NVIDIA H100 80GB HBM3 with llama-8b/32768/s2"
    assert nearest(read_measured(table), TrainingParams(attention="full"), 8192, 3e9).mfu == 0.40
    table.write_text(json.dumps({"machine": {"device": "x86_64 CPU"}, "cases": cases}))
    with pytest.raises(UserError, match="no MFU of x86_64 CPU"):
        read_measured(table)
    table.write_text("[]")
    with pytest.raises(UserError, match="is not a table"):
        read_measured(table)
