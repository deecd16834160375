"""What a machine lacks is refused before anything is loaded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from data_schemas import devices, precision
from data_schemas.devices import Gpu
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs import machine_checks
from ray_jobs.finetune.training.training_model import build_model
from ray_jobs.machine_checks import refuse_impossible_machine

V100, H200 = Gpu("Tesla V100", 32 * 10**9, (7, 0)), Gpu("NVIDIA H200", 150 * 10**9, (9, 0))


def params(**groups: Any) -> PipelineParams:
    required = {"run_name": "a", "corpus": {"sources": ["x"]}, "model": {"base": "demo", "target_length": 2048}}
    return PipelineParams.model_validate(required | groups)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it with the machine that the checks are to find."""

    def make(gpus: tuple[Gpu, ...] = (), cpus: int = 2, cpu_bf16: bool = False) -> None:
        monkeypatch.setattr(machine_checks, "gpus", lambda: gpus)
        monkeypatch.setattr(machine_checks, "num_cpus", lambda: cpus)
        monkeypatch.setattr(precision, "gpus", lambda: gpus)
        monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: cpu_bf16)

    return make


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ({"ray": {"use_gpu": True}}, "no GPU is visible on this machine"),
        ({"ray": {"num_workers": 4}}, "needs 4 processors, but this machine has 2"),
        ({"ray": {"num_workers": 2, "cpus_per_worker": 1.5}}, "needs 3 processors"),
        ({"training": {"s2_executor": "flash_attn"}}, "the package flash_attn, which is not installed"),
        ({"training": {"s2_executor": "torch_varlen"}}, "ray.use_gpu is off"),
        ({"training": {"s2_executor": "torch_varlen", "attention": "full"}}, "ray.use_gpu is off"),
        ({"training": {"loss_kernel": "liger"}}, "the package liger_kernel, which is not installed"),
        ({"training": {"norm_kernel": "liger"}}, "norm_kernel liger needs the package liger_kernel"),
        ({"training": {"base_precision": "fp8"}}, "fp8 needs a GPU that multiplies 8-bit floats, but ray.use_gpu is off"),
    ],
)
def test_what_the_machine_lacks_is_one_sentence(machine: Any, groups: dict[str, Any], sentence: str) -> None:
    machine()
    with pytest.raises(UserError, match=sentence):
        refuse_impossible_machine(params(**groups))


def test_fp8_on_a_gpu_without_units_for_it_is_refused(machine: Any) -> None:
    """It would be computed all the same, but slower than the full weights."""
    asked = {"ray": {"use_gpu": True, "num_workers": 2}, "training": {"base_precision": "fp8"}}
    machine(gpus=(H200, V100), cpus=16)
    refuse_impossible_machine(params(**asked | {"ray": {"use_gpu": True}}))  # one worker has the first one
    with pytest.raises(
        UserError, match=r"8-bit units \(compute capability 8.9\), but Tesla V100 has 7.0: choose int8, nf4 or full"
    ):
        refuse_impossible_machine(params(**asked))
    machine(gpus=(H200, Gpu("AMD Instinct MI300X", 192 * 10**9, None)), cpus=16)
    refuse_impossible_machine(params(**asked))


def test_fp8_is_refused_by_a_cluster_s_worker_before_the_base_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    asked = params(training={"base_precision": "fp8"}, model={"base": "/nowhere", "target_length": 2048})
    with pytest.raises(UserError, match=r"NVIDIA A100 has 8\.0"):
        build_model(asked, torch.device("cuda"))


def test_too_few_gpus_and_a_kernel_for_them(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(gpus=(H200,), cpus=16)
    refuse_impossible_machine(params(ray={"use_gpu": True}))
    with pytest.raises(UserError, match=r"ray.num_workers 2 needs 2 GPUs, but this machine has 1"):
        refuse_impossible_machine(params(ray={"use_gpu": True, "num_workers": 2}))
    refuse_impossible_machine(params(ray={"use_gpu": True, "num_workers": 2, "min_workers": 1}))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    with pytest.raises(UserError, match="bitsandbytes, which is not installed"):
        refuse_impossible_machine(params(ray={"use_gpu": True}, training={"optimizer": "adamw_8bit"}))
    with pytest.raises(UserError, match=r"base_precision nf4 needs the package bitsandbytes.*choose full"):
        refuse_impossible_machine(params(training={"base_precision": "nf4"}))


@pytest.mark.parametrize("address", ["auto", "http://head:8265", "head:6379"])
def test_a_cluster_is_not_judged_by_this_machine(machine: Any, address: str) -> None:
    machine()
    refuse_impossible_machine(params(ray={"use_gpu": True, "num_workers": 8, "address": address}))


@pytest.mark.parametrize(
    ("ray", "found", "expected"),
    [
        ({}, {}, "fp32"),
        ({}, {"cpu_bf16": True}, "bf16"),
        ({"address": "auto"}, {"cpu_bf16": True}, "fp32"),
        ({"use_gpu": True}, {"gpus": (H200,)}, "bf16"),
        ({"use_gpu": True}, {"gpus": (H200, V100)}, "fp32"),
        ({"use_gpu": True, "address": "http://head:8265"}, {}, "bf16"),
    ],
)
def test_auto_is_the_fast_precision_of_the_device(machine: Any, ray: Any, found: Any, expected: str) -> None:
    machine(**found)
    chosen = params(ray=ray)
    assert chosen.training.precision == expected
    assert chosen.model_dump(mode="json")["training"]["precision"] == expected
    assert params(ray=ray, training={"precision": "bf16"}).training.precision == "bf16"


@pytest.mark.parametrize(
    ("file", "text", "is_less"),
    [
        ("memory.max", "5000000\n", True),
        ("memory.max", "max\n", False),
        ("memory/memory.limit_in_bytes", "5000000\n", True),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", False),
    ],
)
def test_a_container_with_less_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, is_less: bool
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    monkeypatch.setattr(devices, "_CGROUPS", tmp_path / "none")
    of_machine = devices.memory_bytes()
    monkeypatch.setattr(devices, "_CGROUPS", tmp_path)
    assert devices.memory_bytes() == (5_000_000 if is_less else of_machine)


def test_this_machine_is_read_without_torch() -> None:
    assert devices.num_cpus() >= 1
    assert devices.memory_bytes() > 10**8
    assert devices.cpu_name()
    code = "import sys; from ray_jobs import machine_checks; machine_checks.gpus(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
