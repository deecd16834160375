"""`ray job submit --working-dir . -- python -m ray_jobs.<job>` on a bare cluster, and what is refused in one sentence."""

import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_schemas.errors import UserError
from data_schemas.manifest import Manifest
from data_schemas.params import PipelineParams
from ray_jobs.prepare.job import determining
from ray_jobs.submit.job_folder import JobFolder
from ray_jobs.submit.jobs_api import JobsApi
from ray_jobs.submit.submission import run_job, stop_jobs
from ray_jobs.submit.waiting import leave
from tests import ROOT
from tests.flows.small_run import small_params
from tests.heard import texts_into
from tests.ray_jobs.submit.real_cluster import BIN, RealCluster, real_cluster
from tests.waiting import HANGS_AFTER_S


@pytest.fixture(scope="module")
def cluster(servers: None) -> Iterator[RealCluster]:
    with real_cluster(num_cpus=1) as found:
        yield found


@pytest.fixture
def mapping(tmp_path: Path, tokenizer: Any, cluster: RealCluster) -> dict[str, Any]:
    return small_params(tmp_path, tokenizer, ray={"num_workers": 1, "address": cluster.address})


def submit(cluster: RealCluster, *words: str) -> subprocess.CompletedProcess[str]:
    """As a platform engineer does, in a checkout."""
    return subprocess.run(
        [str(BIN / "ray"), "job", "submit", "--address", cluster.address, "--working-dir", ".", "--", "python", "-m", *words],
        cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=HANGS_AFTER_S, check=False,
    )  # fmt: skip


def test_a_job_from_a_uri_prints_progress_and_writes_manifests(
    mapping: dict[str, Any], tmp_path: Path, cluster: RealCluster
) -> None:
    mapping["ray"] |= {"address": "local"}  # inside a job: the cluster it runs on
    (tmp_path / "params.json").write_text(json.dumps(mapping))
    outcome = tmp_path / "outcome.json"
    done = submit(cluster, "ray_jobs.prepare", "--params", f"file://{tmp_path}/params.json", "--outcome", str(outcome))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ingest: 14 documents" in done.stdout
    made = json.loads(outcome.read_text())
    assert made["kind"] == "shards"
    assert made["place"] in done.stdout
    assert Manifest.model_validate_json(Path(made["place"], "manifest.json").read_text()).digest == made["digest"]
    assert "Uploading package" in done.stderr + done.stdout


def test_a_job_that_fails_says_one_sentence(mapping: dict[str, Any], tmp_path: Path, cluster: RealCluster) -> None:
    """Submitted by a run, which uploads the code, and by hand with what that run has left."""
    mapping["corpus"] |= {"sources": [str(tmp_path / "nowhere")]}
    mapping["ray"] |= {"working_dir": str(ROOT)}
    params = PipelineParams.model_validate(mapping)
    told: list[str] = []
    with pytest.raises(UserError, match=r"nowhere.* does not exist") as raised:
        run_job("prepare", params, texts_into(told), kind="documents", determining=determining)
    assert "\n" not in str(raised.value)
    assert not any("Traceback" in line for line in told)
    [file] = Path(mapping["storage"]).glob("runs/jobs/*/params.json")
    done = submit(cluster, "ray_jobs.finetune", "--params", str(file))
    assert done.returncode != 0
    assert f"error: {raised.value}" in done.stdout
    assert "Traceback" not in done.stdout


def test_storage_that_the_cluster_does_not_see(mapping: dict[str, Any], tmp_path: Path, cluster: RealCluster) -> None:
    """A second node has another folder under the storage's name: it is refused before anything is read."""
    storage = Path(mapping["storage"])
    storage.mkdir()
    blind = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'mount -t tmpfs none {storage} && exec "$@"', "sh")
    if subprocess.run([*blind, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no mounts in a namespace")
    node = cluster.start_node(1, prefix=blind)
    try:
        with pytest.raises(UserError, match=rf"The storage {storage} is not visible on the node\(s\) [0-9.]+ \(\w+\)"):
            run_job(
                "prepare", PipelineParams.model_validate(mapping), lambda _: None, kind="documents", determining=determining
            )
        assert not (storage / "documents").exists()
        assert not list(storage.glob(".probe-*"))
    finally:
        cluster.kill(node)


@contextmanager
def answering(status: int, body: dict[str, Any]) -> Iterator[str]:
    """A server that gives one answer to everything."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((404, {}), "is not a Ray dashboard with a Jobs API"),
        ((200, {"ray_version": "2.9.3"}), r"runs Ray 2\.9\.3 and this is Ray 2\.\d+"),
        ((401, {}), "wants another token"),
    ],
)
def test_what_is_no_cluster_for_us_is_one_sentence(mapping: dict[str, Any], answer: Any, sentence: str) -> None:
    with answering(*answer) as address:
        mapping["ray"] |= {"address": address}
        with pytest.raises(UserError, match=sentence) as raised:
            run_job("prepare", PipelineParams.model_validate(mapping), lambda _: None, kind="shards", determining=determining)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_submitted_is_one_sentence(mapping: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    source = {"uri": "sftp://secret@bucket/x", "name": "x"}
    for group, change, sentence in (
        ("ray", {"address": "http://127.0.0.1:9"}, "does not answer: start the cluster"),
        ("ray", {"env_vars": ["NOT_SET_HERE"]}, "ray.env_vars names NOT_SET_HERE"),
        ("ray", {"working_dir": "/tmp"}, "has no ray_jobs in it"),
        ("corpus", {"sources": [source]}, r"sources\[0\].uri holds a secret"),
    ):
        params = PipelineParams.model_validate(mapping | {group: mapping[group] | change})
        with pytest.raises(UserError, match=sentence) as raised:
            run_job("prepare", params, lambda _: None, kind="shards", determining=determining)
        assert "secret@" not in str(raised.value)
    with pytest.raises(ValueError, match="give the cluster's token as RAY_AUTH_TOKEN"):
        PipelineParams.model_validate(mapping | {"ray": {"address": "https://user:secret@ray.example.org"}})
    with pytest.raises(ValueError, match="cannot run Ray Train"):
        PipelineParams.model_validate(mapping | {"ray": {"address": "ray://127.0.0.1:10001"}})


def test_jobs_of_a_lost_run_are_stopped(mapping: dict[str, Any], tmp_path: Path, cluster: RealCluster) -> None:
    """Its process and its guardian are gone without a word; one that is said to wait still, a minute ago, counts no more."""
    params = PipelineParams.model_validate(mapping)
    place = Path(mapping["storage"], "runs", "jobs", "lost")
    (place / "waiting").mkdir(parents=True)
    waiting = place / "waiting" / "1.json"
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(cluster.address)
    metadata = {"ropeway_folder": str(place), "ropeway_run": "small", "ropeway_storage": mapping["storage"]}
    for name, run in (("ropeway-finetune-0-1", "small"), ("ropeway-finetune-1-1", "another")):
        client.submit_job(entrypoint="sleep 86400", submission_id=name, metadata=metadata | {"ropeway_run": run})
    cluster.wait_until(lambda: client.get_job_status("ropeway-finetune-0-1") == "RUNNING", "it runs")
    mine = JobFolder(str(place.with_name("mine")))  # of a run that was about to submit the same, and came second
    assert not leave(JobsApi(cluster.address), "ropeway-finetune-0-1", mine, None, "it came second")
    assert not client.get_job_status("ropeway-finetune-0-1").is_terminal()
    waiting.write_text(json.dumps({"at": time.time()}))
    assert stop_jobs(params, lambda _: None) == ()
    waiting.write_text(json.dumps({"at": 0}))
    assert stop_jobs(params, lambda _: None) == ("ropeway-finetune-0-1",)
    assert client.get_job_status("ropeway-finetune-0-1") == "STOPPED"
    assert not client.get_job_status("ropeway-finetune-1-1").is_terminal()
    client.stop_job("ropeway-finetune-1-1")
