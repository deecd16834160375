"""Run a job on a Ray cluster by its Jobs API: submit it, or attach to it if it already runs, and wait for its artifact.

The submission id is a function of the parameters that determine the job's result, which the stage names (`Determining`). So runs
with the same parameters share one job, whoever starts them. Results come from the storage: the job writes an outcome that names
its artifact, and the artifact's manifest says the rest. Progress comes from the job's log, which the job writes as events.
"""

from __future__ import annotations

import os
import shlex
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from data_schemas.absolute_paths import absolute_paths
from data_schemas.addresses import holds_secret, without_secrets
from data_schemas.errors import UserError
from data_schemas.manifest import stage_digest
from data_schemas.params import PipelineParams, RayParams
from data_schemas.progress import ProgressCallback, describe, message
from data_schemas.storage import Artifact, Storage
from ray_jobs.submit.guardian import Guardian
from ray_jobs.submit.job_folder import LEFT, OUTCOME, PARAMS, JobFolder
from ray_jobs.submit.job_log import event_of, follow
from ray_jobs.submit.jobs_api import FOLDER, AlreadyThere, Job, JobsApi, NoAnswer
from ray_jobs.submit.waiting import leave

JobName = Literal["prepare", "search_rope", "finetune", "evaluate", "advise"]
Determining = Callable[[PipelineParams], dict[str, Any]]
"""The parameters that decide what a job makes, as JSON; each stage module has such a function, called `determining`."""
Answer = TypeVar("Answer")

_RUN, _STORAGE = "ropeway_run", "ropeway_storage"  # metadata of a submission, beside its FOLDER
_READY_WITHIN_S = 60.0
_KILLED = (-9, 137)


def is_submitted(ray: RayParams) -> bool:
    """Whether jobs go to the dashboard of a cluster, rather than to a cluster that this process is connected to."""
    return ray.address.startswith(("http://", "https://"))


def run_job(
    job: JobName,
    params: PipelineParams,
    progress: ProgressCallback,
    *,
    kind: str,
    determining: Determining,
    inputs: Mapping[str, Artifact] | None = None,
) -> Artifact:
    """The artifact of `kind` that `python -m ray_jobs.<job>` makes, or finds, on the cluster at `params.ray.address`.

    Args:
        progress: takes the job's events, and the other lines of its log as messages.
        kind: folder of the artifact below the storage, such as "shards"; for "documents", `prepare` stops after ingest.
        determining: of the stage that the job runs last.
        inputs: artifacts by kind that this run already has; the job uses them instead of finding them from the parameters.

    Raises:
        UserError: the job's own sentence, or why it could not run, or why its result cannot be seen here.

    Any exception while waiting, KeyboardInterrupt and Prefect's termination signal included, stops the job and is raised again
    when the job has stopped. A job that another run waits for keeps running (`ray_jobs.submit.waiting`).
    """
    _refuse_secrets(params)
    given = {name: artifact.digest for name, artifact in (inputs or {}).items()}
    params, storage = absolute_paths(params), Storage(params.storage)
    environment = _environment(params.ray)
    api = JobsApi(params.ray.address)
    name = submission_name(job, params, kind, given, determining)

    def say(text: str) -> None:
        progress(message(text))

    while True:
        attempts = _patiently(api, partial(api.jobs, f"{name}-"))
        running = next((found for found in attempts if not found.ended and FOLDER in found.metadata), None)
        submission_id = running.submission_id if running else f"{name}-{_last_attempt(attempts) + 1}"
        folder = JobFolder(running.metadata[FOLDER]) if running else _new_folder(storage, submission_id, params)
        guardian = Guardian(api.address, submission_id, folder, params.run_name)
        try:
            with guardian:
                if running:
                    say(f"{job}: attached to the job {submission_id}, which runs already; its last lines:")
                else:
                    metadata = {FOLDER: folder.place, _RUN: params.run_name, _STORAGE: params.storage}
                    command = _command(job, kind, given, folder)
                    _patiently(api, partial(_submit, api, submission_id, command, environment, metadata))
                    say(f"{job}: submitted to {api.address} as {submission_id}")
                ended = follow(api, submission_id, progress, joined=bool(running))
        except AlreadyThere:
            folder.remove()
            continue
        except BaseException:
            if guardian.stopped is not None:
                end = "is stopped" if guardian.stopped else "is not stopped: another run waits for it, or it cannot be reached"
                say(f"{job}: the job {submission_id} {end}")
            raise
        if ended.status == "STOPPED" and folder.read(LEFT) is not None:
            say(f"{job}: another run stopped the job just as this one attached to it; submitting it again")
            continue
        return _result(api, ended, storage, kind, folder)


def submission_name(job: JobName, params: PipelineParams, kind: str, given: Mapping[str, str], determining: Determining) -> str:
    """The submission id without the attempt's number: the same for all runs whose job has the same result, on any machine."""
    named = determining(params) | {"storage": params.storage, "kind": kind}
    return f"ropeway-{job}-{stage_digest(job, named, 1, dict(given))[:16]}"


def stop_jobs(params: PipelineParams, progress: ProgressCallback, *, force: bool = False) -> tuple[str, ...]:
    """Stop the jobs that were submitted for this run and that no living process waits for; returns their submission ids.

    For a run whose process and guardian are both gone, for example with their machine. A process that vanished counts as
    waiting for one more minute. `force` also stops jobs that a process waits for.
    """
    if not is_submitted(params.ray):
        return ()
    api = JobsApi(params.ray.address)
    root = absolute_paths(params).storage
    stopped = []
    for job in _patiently(api, partial(api.jobs, "ropeway-")):
        if job.ended or job.metadata.get(_RUN) != params.run_name or job.metadata.get(_STORAGE) != root:
            continue
        folder = JobFolder(job.metadata[FOLDER])
        if leave(api, job.submission_id, folder, None, "its run was given up", force=force):
            stopped.append(job.submission_id)
            progress(message(f"stopped the job {job.submission_id}"))
    return tuple(stopped)


def _submit(api: JobsApi, submission_id: str, command: str, environment: dict[str, Any], metadata: dict[str, str]) -> None:
    """Submit. The job may exist already because the answer to an earlier try was lost."""
    try:
        api.submit(submission_id, command, environment, metadata)
    except AlreadyThere:
        there = api.job(submission_id)
        if there is None or there.metadata.get(FOLDER) != metadata[FOLDER]:
            raise


def _patiently(api: JobsApi, ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns, with retries: a starting head node has a dashboard before it can take jobs."""
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            return ask()
        except NoAnswer as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"The Ray dashboard at ray.address {api.address} takes no jobs ({error}): check the cluster's head node."
                ) from error
        time.sleep(1.0)


def _refuse_secrets(params: PipelineParams) -> None:
    """UserError for a secret in an address of the corpus: a job's parameters lie in a file below the storage."""
    named = [(f"corpus.sources[{i}].uri", source.uri) for i, source in enumerate(params.corpus.sources)]
    named += [("corpus.decontamination.prompt_files", name) for name in params.corpus.decontamination.prompt_files]
    for field, uri in named:
        if holds_secret(uri):
            raise UserError(
                f"{field} holds a secret, {without_secrets(uri)}: for a submitted job give it in the environment, and name the variable "
                "in ray.env_vars."
            )


def _environment(ray: RayParams) -> dict[str, Any]:
    """Ray's runtime environment of the job. UserError for a folder or variable that is not there."""
    if missing := [name for name in ray.env_vars if name not in os.environ]:
        raise UserError(f"ray.env_vars names {missing[0]}, which is not set here: set it, or remove it from the list.")
    environment: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in ray.env_vars}}
    if ray.working_dir is not None:
        if not (Path(ray.working_dir) / "ray_jobs" / "__init__.py").is_file():
            raise UserError(f"ray.working_dir {ray.working_dir} has no ray_jobs in it: give the folder with Ropeway's code.")
        environment["working_dir"] = ray.working_dir
    return environment


def _new_folder(storage: Storage, submission_id: str, params: PipelineParams) -> JobFolder:
    """A folder for this submission alone: after a restart the cluster gives the same ids again."""
    folder = JobFolder.of(storage, f"{submission_id}.{uuid.uuid4().hex[:8]}")
    try:
        folder.write(PARAMS, params.model_dump(mode="json", exclude_defaults=True))
    except OSError as error:
        raise UserError(
            f"Cannot write below the storage {params.storage}: {error.strerror}. Give another `storage`."
        ) from error
    return folder


def _command(job: JobName, kind: str, given: Mapping[str, str], folder: JobFolder) -> str:
    words = ["python", "-m", f"ray_jobs.{job}", "--params", folder.at(PARAMS), "--outcome", folder.at(OUTCOME)]
    words += ["--progress", "json"]
    if kind == "documents":
        words += ["--until", "documents"]
    for name, digest in given.items():
        words += ["--given", f"{name}={digest}"]
    return shlex.join(words)


def _last_attempt(attempts: list[Job]) -> int:
    numbers = [attempt.submission_id.rpartition("-")[2] for attempt in attempts]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _result(api: JobsApi, job: Job, storage: Storage, kind: str, folder: JobFolder) -> Artifact:
    outcome = folder.read(OUTCOME)
    if job.status == "STOPPED":
        raise UserError(f"The job {job.submission_id} was stopped on the cluster: run again to continue from where it was.")
    if outcome is not None and "error" in outcome:
        raise UserError(str(outcome["error"]))
    if job.status != "SUCCEEDED":
        raise UserError(_failure(api, job, storage))
    artifact = storage.find(kind, outcome["digest"]) if outcome and outcome.get("kind") == kind else None
    if artifact is None:
        raise UserError(
            f"The job {job.submission_id} has ended, but its result is not below {storage.root} here: give a `storage` that this "
            "machine and the cluster share."
        )
    assert outcome is not None
    return replace(artifact, reused=bool(outcome["reused"]))


def _failure(api: JobsApi, job: Job, storage: Storage) -> str:
    """One sentence on a job that ended without an error message of its own."""
    try:
        lines = [describe(event) for line in api.log(job.submission_id).split("\n") if (event := event_of(line)) is not None]
    except (NoAnswer, RuntimeError):
        lines = job.message.splitlines()
    last = (lines or [" ".join(job.message.split()) or "it left no log"])[-1].strip()[:300]
    where = f"The job {job.submission_id} on the cluster at {api.address}"
    if "No module named" in last and ("ray_jobs" in last or "data_schemas" in last):
        return f"{where} does not find Ropeway ({last}): set ray.working_dir to the folder with its code, or install it on every node."
    if "There is no parameter file" in last:
        return f"{where} does not see the storage {storage.root}: give a `storage` that this machine and all its nodes share."
    if "runtime_env setup failed" in job.message:
        return f"{where} could not be set up: {' '.join(job.message.split())[:300]}"
    if job.message and "exit code" in job.message:
        code = job.message.split("exit code", 1)[1].split(",")[0].strip(" .")
        if code in map(str, _KILLED):
            return (
                f"{where} was killed, perhaps because the head node ran out of memory: run again to continue from where it was."
            )
        return f"{where} failed with exit status {code}: {last} (see its whole log above or in the dashboard)"
    return f"{where} failed: {' '.join(job.message.split())[:300] or last}; run again to continue from where it was."
