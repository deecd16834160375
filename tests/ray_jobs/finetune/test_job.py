"""`python -m ray_jobs.finetune` as a platform engineer runs it: real Ray, real workers, no Prefect."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from data_schemas.params import PipelineParams
from ray_jobs.finetune.training.loop import Worker, train
from tasks.pack.reading import open_rows
from tests import ROOT
from tests.flows.small_run import small_params


def start(params, home):
    """Start the job from another folder's point of view: `home` is the working directory. In a process group of its own."""
    (home / "params.json").write_text(json.dumps(params))
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.finetune", "--params", "params.json"], cwd=home, start_new_session=True,
        stdout=subprocess.PIPE, stderr=(home / "log.txt").open("w"), text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(home)},
    )  # fmt: skip


def finish(process, home):
    """Wait for the job; returns its status, what it printed and what it told."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output, (home / "log.txt").read_text()


def alone_without_ray(params, home, storage):
    """The same training in this process, by the plain loop; returns its adapter and its reports."""
    torch.set_num_threads(1)
    model = params["model"] | {"base": str(home / "base")}
    plain = PipelineParams.model_validate(params | {"model": model, "ray": {"num_workers": 1}})
    [shards] = [manifest.parent for manifest in storage.glob("shards/*/manifest.json")]
    reports, adapters = [], []

    def report(metrics, directory):
        reports.append(metrics)
        adapters.append(directory and directory / "adapter" / "adapter_model.safetensors")

    scratch = home / "scratch"
    scratch.mkdir()
    train(plain, open_rows(shards), open_rows(shards / "heldout"), Worker(0, 1, torch.device("cpu")), report, None, scratch)
    return load_file(adapters[-1]), reports


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_workers_train_what_the_plain_loop_does(tmp_path, tokenizer):
    params = small_params(tmp_path, tokenizer, ray={"num_workers": 2, "peak_tflops": 0.1})
    params["model"]["base"] = "base"  # relative: Ray's workers change directory
    status, output, log = finish(start(params, tmp_path), tmp_path)
    assert status == 0, log[-3000:]
    checkpoint = Path(output.strip().splitlines()[-1])
    weights = load_file(checkpoint / "adapter" / "adapter_model.safetensors")
    expected, reports = alone_without_ray(params, tmp_path, tmp_path / "storage")
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(weight, weights[name], atol=2e-5, rtol=1e-3)
    logged, timed = lines_of(checkpoint / "training_log.jsonl"), lines_of(checkpoint / "progress.jsonl")
    assert [line["loss"] for line in logged] == pytest.approx([line["loss"] for line in reports], rel=1e-5)
    assert [line["step"] for line in logged] == [line["step"] for line in timed] == [1, 2, 3, 4, 5, 6]
    assert all(line["tokens_per_s"] > 0 and line["peak_memory_mb"] > 50 and 0 < line["mfu"] < 1 for line in timed)
    assert timed[-1]["seconds_left"] == 0
    assert list((checkpoint / "tensorboard").glob("events.out.tfevents.*"))
    assert "MFU" in log
    assert not any(tmp_path.glob("storage/work/finetune/*"))


def wait_for_step(process, storage, step, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while not any(len(p.read_text().splitlines()) >= step for p in storage.glob("work/finetune/*/progress.jsonl")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def train_workers(process):
    family = psutil.Process(process.pid).children(recursive=True)
    return [child for child in family if "RayTrainWorker" in " ".join(child.cmdline())]


def test_killed_worker_killed_run_and_fewer_workers_end_as_if_nothing_had_happened(tmp_path, tokenizer):
    params = small_params(tmp_path, tokenizer, ray={"num_workers": 2, "min_workers": 1})
    params["training"] |= {"steps": 60, "validate_every": 30, "checkpoint_every": 4, "learning_rate": 1e-4}
    storage = tmp_path / "storage"
    process = start(params, tmp_path)
    try:
        wait_for_step(process, storage, 9)
        worker, *others = train_workers(process)
        assert others
        worker.send_signal(signal.SIGKILL)
        wait_for_step(process, storage, 8)
        [log] = storage.glob("work/finetune/*/progress.jsonl")
        before = log.stat().st_ino
        while log.stat().st_ino == before:  # written anew by the worker that takes over
            time.sleep(0.02)
        wait_for_step(process, storage, 20)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(lines_of(log)) < 60
    for snapshot in log.parent.glob("ray/*.json"):  # Ray writes it in place, so that a kill may tear it
        snapshot.write_text(snapshot.read_text()[:-20])
    resumed = params | {"ray": {"num_workers": 1}}
    status, output, told = finish(start(resumed, tmp_path), tmp_path)
    assert status == 0, told[-3000:]
    checkpoint = Path(output.strip().splitlines()[-1])
    expected, reports = alone_without_ray(resumed, tmp_path, storage)
    logged = lines_of(checkpoint / "training_log.jsonl")
    assert [line["step"] for line in logged] == list(range(1, 61))
    assert [line["loss"] for line in logged] == pytest.approx([line["loss"] for line in reports], rel=1e-4)
    assert [line["tokens"] for line in logged] == [line["tokens"] for line in reports]  # the same rows at every step
    first_new = min(int(word.split("/")[0]) for word in told.split() if word.endswith("/60,"))
    assert first_new > 4  # it went on, and did not begin again
    for name, weight in load_file(checkpoint / "adapter" / "adapter_model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], atol=5e-4, rtol=5e-3)


def test_a_loss_that_is_not_finite_is_one_sentence(tmp_path, tokenizer):
    params = small_params(tmp_path, tokenizer)
    broken = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    broken.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("inf")
    broken.save_pretrained(tmp_path / "base")
    status, _, log = finish(start(params, tmp_path), tmp_path)
    assert status == 2
    assert "Training stopped at step 1: the loss is nan" in log
    assert "Traceback" not in log
    assert not (tmp_path / "storage" / "checkpoints").exists()
