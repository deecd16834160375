"""Which processes wait for a submitted job, and when the job is stopped.

Several runs with the same parameters share one job. Each waiting process has a file below the job's folder, and its guardian
renews the file every few seconds. A process that stops waiting before the job has ended (cancelled, failed, killed) removes its
own file first and then looks for others: **the last process that leaves stops the job, and no other.** If two leave at once, at
least one of them sees no file of the other.

A run that attaches between that look and the stop finds the job stopped, with `left.json` in its folder. It submits the next
attempt, which continues from the last checkpoint. A job stopped by hand leaves no such file and is not submitted again. A file
that has not been renewed for a minute belongs to a machine that is gone. It keeps no job alive: the next process that leaves
stops the job, or `stop_jobs` does.
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
    """Write or renew the file of a waiting process."""
    who = {"run_name": run_name, "host": socket.gethostname(), "pid": os.getppid(), "at": time.time()}
    folder.write(f"{WAITING}/{waiter}.json", who)


def no_longer_waiting(folder: JobFolder, waiter: str) -> None:
    folder.remove(f"{WAITING}/{waiter}.json")


def anybody_waits(folder: JobFolder) -> bool:
    """Whether a process whose file was renewed lately waits for the job."""
    found = [folder.read(f"{WAITING}/{name}") for name in folder.names(WAITING)]
    return any(who is not None and time.time() - float(who.get("at", 0)) < _GONE_AFTER_S for who in found)


def leave(api: JobsApi, submission_id: str, folder: JobFolder, waiter: str | None, why: str, *, force: bool = False) -> bool:
    """Stop waiting. Then stop the job, and wait for that, if no other process waits or with `force`. Returns whether it is stopped.

    If the storage does not answer, the job is stopped, because it could not work without storage either. A job with another
    folder was submitted by another run under the same id, and is left alone.
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
