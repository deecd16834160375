"""Submission in tests waits for slow machines."""

from collections.abc import Iterator

import pytest

from tests.ray_jobs.submit.patience import be_patient


@pytest.fixture(scope="session", autouse=True)
def _patient_submission() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        be_patient(patch)
        yield
