"""Two nodes of a real Ray cluster: one gets a preemption notice and is taken away; the run checkpoints, moves and ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import PYTHONPATH
from tests.flows.small_run import small_params
from tests.ray_jobs.finetune.test_job import lines_of, progress_of, wait_for_step
from tests.ray_jobs.submit.real_cluster import BIN, real_cluster
from tests.waiting import HANGS_AFTER_S, EndedTooSoon, interrupted, wait_until


@pytest.mark.usefixtures("servers")
def test_a_preempted_node_costs_no_more_than_what_came_after_its_notice(tmp_path, tokenizer):
    """A head without CPUs and two nodes with one each, as processes of this machine."""
    with real_cluster(num_cpus=0) as cluster:
        leaving, _ = (cluster.start_node(num_cpus=1) for _ in range(2))

        def attempt(amount):
            nonlocal leaving
            home = tmp_path / str(amount)
            home.mkdir()
            if leaving.poll() is not None:
                leaving = cluster.start_node(num_cpus=1)
            train_while_it_leaves(home, tokenizer, cluster, leaving, steps=800 * amount)

        interrupted(attempt)


def train_while_it_leaves(home, tokenizer, cluster, leaving, steps):
    """EndedTooSoon where the training was over before the node was taken away."""
    params = small_params(home, tokenizer, ray={"num_workers": 2, "address": cluster.gcs_address})
    params["training"] |= dict.fromkeys(("steps", "validate_every", "checkpoint_every"), steps)
    (home / "params.json").write_text(json.dumps(params))
    job = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.finetune", "--params", "params.json"], cwd=home, text=True,
        stdout=subprocess.PIPE, stderr=(home / "log.txt").open("w"),
        env=cluster.environment | {"PYTHONPATH": PYTHONPATH, "HOME": str(home)},
    )  # fmt: skip
    storage = home / "storage"
    try:
        wait_for_step(job, storage, 5)
        give_notice(cluster, leaving)
        # out of turn, as the first one is due at the end; and known to Ray, which lists it some seconds later
        listed = storage.glob
        wait_until(
            lambda: any("checkpoint_" in text(path) for path in listed("work/finetune/*/ray/*.json")), "a checkpoint", job
        )
        _, _, before = progress_of(storage)
        cluster.kill(leaving)
        if job.poll() is not None:
            raise EndedTooSoon("training, before its node was taken away")
        cluster.start_node(num_cpus=1)
        wait_until(lambda: progress_of(storage)[2] != before, "another worker takes over", job, step_s=0.02)
        assert len(progress_of(storage)[1]) > 5
        output, _ = job.communicate(timeout=HANGS_AFTER_S)
    except BaseException:
        print(text(home / "log.txt")[-3000:])
        raise
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 0, text(home / "log.txt")[-3000:]
    made = [line["step"] for line in lines_of(Path(output.strip().splitlines()[-1]) / "progress.jsonl")]
    assert made == list(range(1, steps + 1))


def text(path):
    return path.read_text() if path.exists() else ""


def give_notice(cluster, node):
    told = subprocess.run(
        [BIN / "ray", "drain-node", "--address", cluster.gcs_address, "--node-id", cluster.node_id(node),
         "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "86400"],
        capture_output=True, text=True, env=os.environ | cluster.environment,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
