"""`python -m ray_jobs.finetune` as a platform engineer runs it: real Ray, real workers, no Prefect."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.flows.small_run import small_params


def finetune(params, home):
    """Run the job from another folder's point of view: `home` is the working directory."""
    (home / "params.json").write_text(json.dumps(params))
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "ray_jobs.finetune", "--params", "params.json"],
        cwd=home, capture_output=True, text=True, timeout=300, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(home)},
    )  # fmt: skip


def test_two_workers_train_what_one_does(tmp_path, tokenizer):
    weights = {}
    for num_workers in (1, 2):
        params = small_params(tmp_path, tokenizer, ray={"num_workers": num_workers})
        params["model"]["base"] = "base"  # relative: Ray's workers change directory
        done = finetune(params, tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        checkpoint = Path(done.stdout.strip().splitlines()[-1])
        weights[num_workers] = load_file(checkpoint / "adapter" / "adapter_model.safetensors")
        log = [json.loads(line) for line in (checkpoint / "training_log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert weights[1].keys() == weights[2].keys()
    for name, weight in weights[1].items():
        torch.testing.assert_close(weight, weights[2][name], atol=2e-5, rtol=1e-3)


def test_a_loss_that_is_not_finite_is_one_sentence(tmp_path, tokenizer):
    params = small_params(tmp_path, tokenizer)
    broken = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    broken.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("inf")
    broken.save_pretrained(tmp_path / "base")
    done = finetune(params, tmp_path)
    assert done.returncode == 2
    assert "Training stopped at step 1: the loss is nan" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "storage" / "checkpoints").exists()
