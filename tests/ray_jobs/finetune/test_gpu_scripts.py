"""The scripts for GPU machines, tried on the CPU with a tiny model: they go on where they stopped, and record what cannot run."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu_parity import compare, lengths_of
from benchmarks.gpu_training import main
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
