"""Two nodes of a real Ray cluster: one gets a preemption notice and is taken away; the run checkpoints, moves and ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests import ROOT
from tests.flows.small_run import small_params
from tests.ray_jobs.finetune.test_job import lines_of, wait_for_step

RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def two_nodes():
    """A head without CPUs and two nodes with one each, as processes of this machine."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        cluster.wait_for_nodes()
        yield cluster, nodes
    finally:
        cluster.shutdown()


def test_a_preempted_node_costs_no_more_than_what_came_after_its_notice(tmp_path, tokenizer, two_nodes):
    cluster, (leaving, _) = two_nodes
    params = small_params(tmp_path, tokenizer, ray={"num_workers": 2, "address": cluster.address})
    params["training"] |= dict.fromkeys(("steps", "validate_every", "checkpoint_every"), 800)
    (tmp_path / "params.json").write_text(json.dumps(params))
    job = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.finetune", "--params", "params.json"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=(tmp_path / "log.txt").open("w"),
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled",
             "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"},
    )  # fmt: skip
    work = tmp_path / "storage" / "work" / "finetune"

    def wait_while(condition):
        deadline = time.monotonic() + 300
        while condition():
            assert job.poll() is None, (tmp_path / "log.txt").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    try:
        wait_for_step(job, tmp_path / "storage", 5)
        give_notice(cluster, leaving)
        wait_while(lambda: not list(work.glob("*/ray/checkpoint_*")))  # out of turn: the first one is due at the end
        [log] = work.glob("*/progress.jsonl")
        file = log.stat().st_ino
        time.sleep(3)  # Ray's snapshot of its checkpoints lags by up to two seconds
        cluster.remove_node(leaving, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        wait_while(lambda: log.stat().st_ino == file)  # written anew by the worker that takes over
        assert len(log.read_text().splitlines()) > 5
        output, _ = job.communicate(timeout=240)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 0, (tmp_path / "log.txt").read_text()[-3000:]
    steps = [line["step"] for line in lines_of(Path(output.strip().splitlines()[-1]) / "progress.jsonl")]
    assert steps == list(range(1, 801))


def give_notice(cluster, node):
    told = subprocess.run(
        [RAY, "drain-node", "--address", cluster.address, "--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION",
         "--reason-message", "spot", "--deadline-remaining-seconds", "600"],
        capture_output=True, text=True, env=os.environ | {"RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
