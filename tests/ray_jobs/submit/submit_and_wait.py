"""`python -m tests.ray_jobs.submit.submit_and_wait FILE`: what a flow does with a training, in a process that tests can kill.

Prints the events that it hears, encoded.
"""

import sys

import pytest

from data_schemas.params_reading import load_params
from data_schemas.progress import ProgressEvent, encode
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.submit.submission import run_job
from tests.ray_jobs.submit.patience import be_patient


def main() -> None:
    [file] = sys.argv[1:]
    be_patient(pytest.MonkeyPatch())
    run_job("finetune", load_params(file), print_event, kind="checkpoints", determining=checkpoint_stage.determining)


def print_event(event: ProgressEvent) -> None:
    print(encode(event), flush=True)


if __name__ == "__main__":
    main()
