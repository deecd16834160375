"""The command line that all jobs share: parameters in, progress and the artifact's place out, one sentence on a user's error.

Progress goes to standard error in words. A program that follows the job starts it with `--progress json` (as
`ray_jobs.submit.submission` does) and gets one JSON line an event instead; `data_schemas.progress.decode` reads them and
leaves every other line of the log alone.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from data_schemas.absolute_paths import absolute_paths
from data_schemas.errors import UserError, as_user_error
from data_schemas.params import PipelineParams
from data_schemas.params_reading import load_params
from data_schemas.progress import ProgressCallback, message, print_encoded, print_progress
from data_schemas.storage import Artifact, Storage
from ray_jobs.submit.job_folder import write_json

Given = Mapping[str, Artifact]
Stage = Callable[[PipelineParams, Storage, ProgressCallback, Given], Artifact]

_CALLBACKS: dict[str, ProgressCallback] = {"text": print_progress, "json": print_encoded}

_DIGEST = re.compile(r"[0-9a-f]{32}")
_IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_PARAMS_HELP = "YAML or JSON of PipelineParams: a file, a URI (s3://, gs://, https://, file://, ...) or JSON text"


def job_parser(job: str, description: str | None, takes: Sequence[str]) -> argparse.ArgumentParser:
    """The command line of a job; its help lists every parameter. `takes`: the kinds of artifacts that `--given` accepts."""
    from data_schemas.params_help import describe_params

    parser = argparse.ArgumentParser(
        prog=f"python -m ray_jobs.{job}",
        description=description,
        epilog=f"parameters (--params; those without a default must be given):\n{describe_params()}"
        if {"-h", "--help"} & set(sys.argv[1:])
        else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", required=True, metavar="FILE|URI|JSON", help=_PARAMS_HELP)
    parser.add_argument(
        "--given",
        action="append",
        default=[],
        metavar="KIND=DIGEST",
        help=f"use this artifact of the storage instead of finding or making it; KIND: {', '.join(takes)}",
    )
    parser.add_argument(
        "--outcome", metavar="FILE|URI", help="JSON to write at the end: kind, digest and place of the artifact, or the error"
    )
    parser.add_argument(
        "--progress",
        choices=tuple(_CALLBACKS),
        default="text",
        help="progress on standard error as text, or as one JSON line an event for a program that follows this job",
    )
    parser.set_defaults(takes=takes)
    return parser


def run_command(arguments: argparse.Namespace, stage: Stage) -> NoReturn:
    """Run `stage`, print its artifact's place last, and exit: 0, or 2 with one sentence on an error that the user can fix."""
    signal.signal(signal.SIGTERM, _end)
    progress = _CALLBACKS[arguments.progress]
    try:
        params = _for_this_cluster(load_params(arguments.params))
        if in_ray_job():
            params = _leave_uploaded_folder(params, arguments)
        storage = Storage(params.storage)
        artifact = stage(params, storage, progress, _given(storage, arguments.given, arguments.takes))
        if arguments.outcome:
            made = {"kind": artifact.kind, "digest": artifact.digest, "place": artifact.location, "reused": artifact.reused}
            write_json(arguments.outcome, made)
    except Exception as error:
        if (told := error if isinstance(error, UserError) else as_user_error(error)) is None:
            raise
        progress(message(f"error: {told}"))
        _write_error(arguments.outcome, told, progress)
        sys.exit(2)
    progress(message(f"{'found' if artifact.reused else 'made'} {artifact.manifest.stage} {artifact.digest}"))
    print(artifact.location, flush=True)
    sys.exit(0)


def in_ray_job() -> bool:
    """Whether this process is the entry point of a submitted job."""
    return _IN_RAY_JOB in os.environ


def _for_this_cluster(params: PipelineParams) -> PipelineParams:
    """Inside a submitted job, `local` and the dashboard's address both mean the cluster that the job runs on."""
    from ray_jobs.submit.submission import is_submitted

    submitted = is_submitted(params.ray)
    if in_ray_job() and (submitted or params.ray.address == "local"):
        return params.model_copy(update={"ray": params.ray.model_copy(update={"address": "auto"})})
    if submitted:
        raise UserError(
            f"ray.address {params.ray.address} is a dashboard, and this command does not submit itself: submit it there with "
            "`ray job submit`, or set ray.address to `local`, `auto` or HOST:6379."
        )
    return params


def _leave_uploaded_folder(params: PipelineParams, arguments: argparse.Namespace) -> PipelineParams:
    """Work in the temporary folder, with all paths made absolute.

    Ray replaces the uploaded folder when another node of the same machine needs it. A process that works in the replaced one
    has no current directory any more, and libraries such as numba fail without one.
    """
    params = absolute_paths(params)
    if arguments.outcome and "://" not in arguments.outcome:
        arguments.outcome = os.path.abspath(arguments.outcome)
    os.chdir(tempfile.gettempdir())
    return params


def _given(storage: Storage, pairs: list[str], takes: Sequence[str]) -> dict[str, Artifact]:
    found = {}
    for pair in pairs:
        kind, _, digest = pair.partition("=")
        if kind not in takes or not _DIGEST.fullmatch(digest):
            kinds = ", ".join(takes)
            raise UserError(f"--given {pair} is not KIND=DIGEST: give 32 hex digits as DIGEST and as KIND one of {kinds}.")
        artifact = storage.find(kind, digest)
        if artifact is None:
            place = storage.remote.uri if storage.remote else storage.root
            raise UserError(f"There is no {kind}/{digest} below the storage {place}: give the digest of a finished artifact.")
        found[kind] = artifact
    return found


def _write_error(outcome: str | None, error: UserError, progress: ProgressCallback) -> None:
    if outcome:
        try:
            write_json(outcome, {"error": str(error)})
        except (OSError, UserError) as unwritten:
            progress(message(f"The outcome cannot be written: {unwritten}"))


def _end(number: int, _: object) -> NoReturn:
    """End by an exception, so that unfinished files are removed. Ray kills a job that has not ended after 3 s."""
    sys.exit(128 + number)
