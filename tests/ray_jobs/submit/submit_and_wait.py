"""`python -m tests.ray_jobs.submit.submit_and_wait FILE JOB KIND`: what a flow does with a job, in a process that tests can kill."""

import sys

import pytest

from data_schemas.params_reading import load_params
from ray_jobs.submit.submission import run_job
from tests.ray_jobs.submit.patience import be_patient


def main() -> None:
    file, job, kind = sys.argv[1:]
    be_patient(pytest.MonkeyPatch())
    artifact = run_job(job, load_params(file), lambda line: print(line, flush=True), kind=kind)  # type: ignore[arg-type]
    print(f"artifact {artifact.path}", flush=True)


if __name__ == "__main__":
    main()
