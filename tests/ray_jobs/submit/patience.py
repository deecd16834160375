"""How long submission waits for a dashboard, a guardian and a stopped job is meant for people; a busy test machine gets longer."""

import pytest

from tests.waiting import HANGS_AFTER_S

_LIMITS = {
    "ray_jobs.submit.submission._READY_WITHIN_S": HANGS_AFTER_S,
    "ray_jobs.submit.guardian._STARTS_WITHIN_S": HANGS_AFTER_S,
    "ray_jobs.submit.guardian.STOPPED_WITHIN_S": HANGS_AFTER_S,
    "ray_jobs.submit.waiting.STOPPED_WITHIN_S": HANGS_AFTER_S,
    "ray_jobs.submit.jobs_api._TIMEOUT_S": (HANGS_AFTER_S, HANGS_AFTER_S),
}


def be_patient(patch: pytest.MonkeyPatch) -> None:
    for name, value in _LIMITS.items():
        patch.setattr(name, value)
