"""`python -m ray_jobs.finetune` as a platform engineer runs it: real Ray, real workers, no Prefect."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from data_schemas.params import PipelineParams
from ray_jobs.finetune.training.distributed import Worker
from ray_jobs.finetune.training.loop import train
from tasks.pack.reading import open_rows
from tests import PYTHONPATH
from tests.flows.small_run import prepare_here, small_params
from tests.waiting import HANGS_AFTER_S, PATIENT_RAY, EndedTooSoon, interrupted, wait_until

pytestmark = pytest.mark.usefixtures("servers")


def start(params, home):
    """Start the job from another folder's point of view: `home` is the working directory. In a process group of its own."""
    (home / "params.json").write_text(json.dumps(params))
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.finetune", "--params", "params.json"], cwd=home, start_new_session=True,
        stdout=subprocess.PIPE, stderr=(home / "log.txt").open("w"), text=True,
        env=PATIENT_RAY | {"PYTHONPATH": PYTHONPATH, "PATH": "/usr/bin:/bin", "HOME": str(home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process, home):
    """Wait for the job; returns its status, what it printed and what it told."""
    output, _ = process.communicate(timeout=HANGS_AFTER_S)
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


def progress_of(storage):
    """The log of the training that goes on, its lines and its inode; EndedTooSoon where it goes on no more."""
    try:
        [log] = storage.glob("work/finetune/*/progress.jsonl")
        return log, lines_of(log), log.stat().st_ino
    except (ValueError, OSError) as error:
        raise EndedTooSoon("training") from error


def wait_for_step(process, storage, step):
    def there():
        with contextlib.suppress(EndedTooSoon):  # or not yet begun
            return len(progress_of(storage)[1]) >= step
        return False

    wait_until(there, f"step {step}", process, step_s=0.02)


def train_workers(process):
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def kill_a_worker_then_the_run(params, home):
    """Returns the training's log, as the kills left it."""
    storage = home / "storage"
    process = start(params, home)
    try:
        wait_for_step(process, storage, 9)
        log, _, before = progress_of(storage)
        workers = train_workers(process)
        if len(workers) < 2:
            raise EndedTooSoon("training by two workers")
        workers[0].send_signal(signal.SIGKILL)
        taken_over = lambda: progress_of(storage)[2] != before  # noqa: E731  # written anew by the worker that takes over
        wait_until(taken_over, "another worker takes over", process, step_s=0.02)
        wait_for_step(process, storage, 20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if len(progress_of(storage)[1]) >= params["training"]["steps"]:
        raise EndedTooSoon("training, before the run was killed")
    return log


def test_two_workers_one_killed_then_the_run_then_one_worker_train_what_the_plain_loop_does(tmp_path, tokenizer):
    def attempt(amount):
        home = tmp_path / str(amount)
        home.mkdir()
        params = small_params(home, tokenizer, ray={"num_workers": 2, "min_workers": 1, "peak_tflops": 0.1})
        params["training"] |= {"steps": 60 * amount, "validate_every": 30, "checkpoint_every": 4, "learning_rate": 1e-4}
        params["training"]["full_attention_layers"] = "auto"
        params["model"]["base"] = "base"  # relative: Ray's workers change directory
        return home, params, kill_a_worker_then_the_run(params, home)

    home, params, log = interrupted(attempt)
    steps, storage = params["training"]["steps"], home / "storage"
    for snapshot in log.parent.glob("ray/*.json"):  # Ray writes it in place, so that a kill may tear it
        snapshot.write_text(snapshot.read_text()[:-20])
    resumed = params | {"ray": {"num_workers": 1, "peak_tflops": 0.1}}
    status, output, told = finish(start(resumed, home), home)
    assert status == 0, told[-3000:]
    checkpoint = Path(output.strip().splitlines()[-1])
    expected, reports = alone_without_ray(resumed, home, storage)
    logged = lines_of(checkpoint / "training_log.jsonl")
    assert [line["step"] for line in logged] == list(range(1, steps + 1))
    assert [line["loss"] for line in logged] == pytest.approx([line["loss"] for line in reports], rel=1e-4)
    assert [line["tokens"] for line in logged] == [line["tokens"] for line in reports]  # the same rows at every step
    first_new = min(int(word.split("/")[0]) for word in told.split() if word.endswith(f"/{steps},"))
    assert first_new > 4  # it went on, and did not begin again
    for name, weight in load_file(checkpoint / "adapter" / "adapter_model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], atol=5e-4, rtol=5e-3)
    require_what_a_run_leaves(checkpoint, storage, told, steps)


def require_what_a_run_leaves(checkpoint, storage, told, steps):
    """Speed, events for TensorBoard, and the layers that the probe chose; nothing in the folder for unfinished work."""
    timed = lines_of(checkpoint / "progress.jsonl")
    assert [line["step"] for line in timed] == list(range(1, steps + 1))
    assert all(line["tokens_per_s"] > 0 and line["peak_memory_mb"] > 50 and 0 < line["mfu"] < 1 for line in timed)
    assert timed[-1]["seconds_left"] == 0
    assert list((checkpoint / "tensorboard").glob("events.out.tfevents.*"))
    assert "MFU" in told
    chosen = json.loads((checkpoint / "full_attention_layers.json").read_text())
    assert len(chosen["scores"]) == 2
    assert chosen["layers"] == [max((0, 1), key=lambda layer: chosen["scores"][layer])]
    assert f"full attention in layer {chosen['layers'][0]}, groups in the others, chosen by a probe" in told
    assert json.loads((checkpoint / "manifest.json").read_text())["summary"]["full_attention"] == chosen
    assert not any(storage.glob("work/finetune/*"))


def test_a_loss_that_is_not_finite_is_one_sentence(tmp_path, tokenizer):
    params = small_params(tmp_path, tokenizer, ray={"num_workers": 1})
    broken = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    broken.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("inf")
    broken.save_pretrained(tmp_path / "base")
    prepare_here(params)
    status, _, log = finish(start(params, tmp_path), tmp_path)
    assert status == 2
    assert "The base's loss is not finite in the probe of layers for full attention" in log
    assert "Traceback" not in log
    assert not (tmp_path / "storage" / "checkpoints").exists()
