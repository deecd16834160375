"""Jobs submitted to a real Ray cluster: a head without CPUs and worker nodes that are killed, on free ports of this machine."""

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressEvent, TrainingStarted, TrainingStep, decode, describe
from data_schemas.storage import Storage
from ray_jobs.finetune.training.checkpoint import last_complete
from ray_jobs.finetune.training.training_log import read_steps
from ray_jobs.prepare.job import determining
from ray_jobs.submit.jobs_api import JobsApi
from ray_jobs.submit.submission import run_job
from tasks.ingest import documents_stage
from tasks.work import InProcess
from tests import ROOT
from tests.flows.small_run import small_params
from tests.ray_jobs.submit.real_cluster import RealCluster, real_cluster
from tests.waiting import HANGS_AFTER_S, wait_until


@pytest.fixture(scope="module")
def cluster(servers: None) -> Iterator[RealCluster]:
    with real_cluster(num_cpus=0) as found:
        found.start_node(num_cpus=2)
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def mapping(home: Path, tokenizer: Any, cluster: RealCluster) -> dict[str, Any]:
    """The small run on the cluster; all tests share its corpus, base and storage."""
    return small_params(home, tokenizer, ray={"num_workers": 1, "address": cluster.address})


def digest_of_documents(params: PipelineParams, home: Path) -> str:
    """What the job will make, made here in another storage."""
    elsewhere = Storage(str(home / "elsewhere"))
    return documents_stage.run(params, elsewhere, lambda _: nullcontext(InProcess()), lambda _: None).digest


def test_a_job_is_streamed_and_its_artifact_found(mapping: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # Ray's client lets it win over the address that is asked for
    monkeypatch.setenv("ROPE_SECRET", "only-in-the-environment")
    mapping["ray"] |= {"env_vars": ["ROPE_SECRET"]}
    params = PipelineParams.model_validate(mapping)
    heard: list[ProgressEvent] = []
    locks = Path(mapping["storage"], ".locks")
    locks.mkdir(parents=True)
    with (locks / f"documents-{digest_of_documents(params, home)}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the job cannot end

        def hear(event: ProgressEvent) -> None:
            heard.append(event)
            if describe(event).startswith("ingest: listing"):  # heard while the job runs, or the job waits for ever
                fcntl.flock(lock, fcntl.LOCK_UN)

        documents = run_job("prepare", params, hear, kind="documents", determining=determining)
    assert not documents.reused
    assert len(list(documents.path.glob("documents-*.parquet"))) == 1
    lines = [describe(event) for event in heard]
    assert "ingest: 14 documents" in " ".join(lines)
    assert not any("ropeway_event" in line for line in lines)
    assert not Path(mapping["storage"], "shards").exists()
    given = {"documents": documents}
    shards = run_job("prepare", params, heard.append, kind="shards", determining=determining, inputs=given)
    assert shards.manifest.parents["documents"] == documents.digest
    shown = [describe(event) for event in heard]
    assert not any("ingest: listing" in line for line in shown[len(lines) :])  # given, so not read again
    written = "".join(p.read_text() for p in Path(mapping["storage"], "runs").rglob("*.json"))
    assert "only-in-the-environment" not in "".join(shown) + written
    assert not list(Path(mapping["storage"]).glob("runs/jobs/*/waiting/*"))


class Waiting:
    """A process that submitted the job or attached to it."""

    def __init__(self, mapping: dict[str, Any], home: Path, cluster: RealCluster, name: str) -> None:
        file = home / f"{name}.json"
        file.write_text(json.dumps(mapping | {"run_name": name}))
        self._log = home / f"{name}.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_jobs.submit.submit_and_wait", str(file)],
            cwd=ROOT, env=cluster.environment, stdout=self._log.open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def told(self) -> str:
        return self._log.read_text()

    def heard(self) -> list[ProgressEvent]:
        return [event for line in self.told.splitlines() if (event := decode(line)) is not None]

    def steps(self) -> list[int]:
        return [event.figures.step for event in self.heard() if isinstance(event, TrainingStep)]

    def wait_for(self, found: Callable[[], Any], what: str) -> None:
        def is_found() -> bool:
            has_ended = self._process.poll() is not None
            assert found() or not has_ended, self.told
            return bool(found())

        wait_until(is_found, what)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(timeout=HANGS_AFTER_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def newest_checkpoint(mapping: dict[str, Any]) -> int:
    """The step of the checkpoint on disk that is furthest on."""
    [work] = Path(mapping["storage"]).glob("work/finetune/*/ray")
    newest = last_complete(work)
    assert newest is not None
    return int(json.loads((newest / "cursor.json").read_text())["step"])


def test_shared_left_killed_and_begun_again(mapping: dict[str, Any], home: Path, cluster: RealCluster) -> None:
    """One training: a second run attaches, the first is killed, the worker node is lost, the second is killed, a third goes on."""
    mapping["training"] |= {"steps": 100_000, "validate_every": 100_000, "checkpoint_every": 50, "warmup_steps": 1}
    api = JobsApi(cluster.address)
    started: list[Waiting] = []

    def start(name: str) -> Waiting:
        started.append(Waiting(mapping, home, cluster, name))
        return started[-1]

    try:
        first = start("first")
        first.wait_for(first.steps, "a step")
        [job] = api.jobs("ropeway-finetune-")
        second = start("second")
        second.wait_for(lambda: "attached to the job" in second.told, "the second run attaches")
        [place] = Path(mapping["storage"]).glob("runs/jobs/ropeway-finetune-*")
        cluster.wait_until(lambda: len(list((place / "waiting").glob("*.json"))) == 2, "two wait")
        first.kill()
        cluster.wait_until(lambda: len(list((place / "waiting").glob("*.json"))) == 1, "the first one's guardian has left")
        assert api.jobs("ropeway-finetune-") == [job]  # it runs on for the second
        before = max(second.steps() or [0])
        cluster.wait_until(lambda: max(second.steps() or [0]) > before + 60, "training goes on, past a checkpoint")
        [began] = [event for event in second.heard() if isinstance(event, TrainingStarted)]
        assert read_steps(Path(began.progress_file))  # a run that attaches later learns where the training is

        [(trainer, lost)] = cluster.workers("RayTrainWorker").items()
        reached, saved = max(second.steps()), newest_checkpoint(mapping)
        cluster.kill(lost)
        cluster.start_node(num_cpus=2)
        cluster.wait_until(lambda: set(cluster.workers("RayTrainWorker")) - {trainer}, "another worker trains")
        cluster.wait_until(lambda: second.steps()[-1] > reached, "training is beyond where it was")
        resumed_at = min(step for step in second.steps()[second.steps().index(reached) + 1 :])
        assert resumed_at >= saved - 50  # the last checkpoint, or the one before where Ray had not yet listed the last

        second.kill()
        cluster.wait_until(
            lambda: api.jobs("ropeway-finetune-")[0].status == "STOPPED", "the job is stopped when none waits for it any more"
        )

        third = start("third")
        third.wait_for(third.steps, "a step")
        assert third.steps()[0] > 50  # from a checkpoint
        assert {found.submission_id[-2:] for found in api.jobs("ropeway-finetune-")} == {"-1", "-2"}
        third.send(signal.SIGINT)
        cluster.wait_until(
            lambda: {found.status for found in api.jobs("ropeway-finetune-")} == {"STOPPED"}, "its job is stopped"
        )
        assert "KeyboardInterrupt" in third.told
        cluster.wait_until(lambda: not cluster.workers("RayTrainWorker"), "no worker is left")
    finally:
        for process in started:
            process.kill()
        for job in api.jobs("ropeway-finetune-"):
            api.stop(job.submission_id, HANGS_AFTER_S)
