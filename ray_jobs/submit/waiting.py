"""Who waits for a submitted job, and the rule by which it is stopped.

Several runs with the same parameters meet at one job. Each that waits has a file below the job's folder, renewed every few
seconds by its guardian. Whoever stops waiting before the job has ended - cancelled, failed, killed - removes its own file
first and looks for others then: **the job is stopped by the last one that leaves, and by nobody else.** Of two that leave
at once at least one sees no file of the other. One that comes between the look and the stop finds the job stopped with
`left.json` beside it, and submits the next attempt, which goes on from the last checkpoint; a job that somebody stops by hand
leaves no such file, and is not submitted again. A file that has not been renewed for a minute is of a machine that is gone:
it keeps no job alive, and its job is stopped by whoever leaves next, or by `stop_jobs`.
"""

from __future__ import annotations

import os
import socket
import time

from data_schemas.errors import UserError
from ray_jobs.submit.job_folder import LEFT, WAITING, JobFolder
from ray_jobs.submit.jobs_api import JobsApi

RENEWED_EVERY_S = 5.0
_GONE_AFTER_S = 60.0
STOPPED_WITHIN_S = 12.0


def say_waiting(folder: JobFolder, waiter: str, run_name: str) -> None:
    """Write or renew the file of one that waits."""
    who = {"run_name": run_name, "host": socket.gethostname(), "pid": os.getppid(), "at": time.time()}
    folder.write(f"{WAITING}/{waiter}.json", who)


def no_longer_waiting(folder: JobFolder, waiter: str) -> None:
    folder.remove(f"{WAITING}/{waiter}.json")


def anybody_waits(folder: JobFolder) -> bool:
    """Whether a process that lives, as far as its file says, waits for the job."""
    found = [folder.read(f"{WAITING}/{name}") for name in folder.names(WAITING)]
    return any(who is not None and time.time() - float(who.get("at", 0)) < _GONE_AFTER_S for who in found)


def leave(api: JobsApi, submission_id: str, folder: JobFolder, waiter: str | None, why: str, *, force: bool = False) -> bool:
    """Stop waiting; stop the job, and see it stopped, if nobody else waits or by `force`. Whether it is stopped.

    Storage that does not answer keeps no job alive: it could not work without it either. A job with another folder was
    submitted by another run under the same id, and is not ours to stop.
    """
    if api.belongs_elsewhere(submission_id, folder.place):
        return False
    try:
        if waiter is not None:
            no_longer_waiting(folder, waiter)
        if not force and anybody_waits(folder):
            return False
        folder.write(LEFT, {"why": why, "host": socket.gethostname(), "at": time.time()})
        if not force and anybody_waits(folder):
            folder.remove(LEFT)
            return False
    except (UserError, OSError):
        pass
    return api.stop(submission_id, STOPPED_WITHIN_S)
