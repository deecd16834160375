"""A small process that stops a submitted job when the process that waits for the job is killed.

`Guardian` starts `python -m ray_jobs.submit.guardian` in a session of its own, so that no signal meant for the run reaches it.
The guardian reads orders from a pipe whose other end only the waiting process holds. If the pipe closes without a farewell, or
the parent process changes, the waiting process is gone, even by SIGKILL. A guardian that dies at the same moment, with its
container or machine, cannot help; `ray_jobs.submit.waiting` says what happens then.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from data_schemas.errors import UserError
from ray_jobs.submit.job_folder import JobFolder
from ray_jobs.submit.waiting import RENEWED_EVERY_S, STOPPED_WITHIN_S, leave, no_longer_waiting, say_waiting

_STARTS_WITHIN_S = 60.0
_FAREWELL, _LEAVE = "farewell", "leave"


@dataclass(frozen=True)
class Watch:
    """What a guardian must know: the job, its folder, and the process that waits."""

    address: str
    submission_id: str
    place: str
    run_name: str
    waiter: str


class Guardian:
    """A context in which this process waits for the job; the job is stopped if this process is killed.

    An exception inside the block stops the job too, unless another process waits for it. `stopped` says afterwards whether the job
    is stopped; None after a clean end.
    """

    def __init__(self, address: str, submission_id: str, folder: JobFolder, run_name: str) -> None:
        self._watch = Watch(address, submission_id, folder.place, run_name, uuid.uuid4().hex)
        self.stopped: bool | None = None

    def __enter__(self) -> Guardian:
        code = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ray_jobs.submit.guardian"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        self._order(json.dumps(vars(self._watch)))
        if self._answer(_STARTS_WITHIN_S) != "waiting":
            self._process.kill()
            self._process.wait()
            raise UserError(f"Cannot write to {self._watch.place}: give another `storage`.")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._order(_FAREWELL)
        else:
            self._order(_LEAVE + " " + kind.__name__ if kind else _LEAVE)
            self.stopped = self._answer(STOPPED_WITHIN_S + 10) == "stopped"
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)

    def _order(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _answer(self, timeout_s: float) -> str:
        """The guardian's next word; empty if none comes in time."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return self._process.stdout.readline().strip() if ready else ""


def main() -> None:
    """Register the parent as waiting until it says farewell, leaves or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    watch = Watch(**json.loads(sys.stdin.readline()))
    folder = JobFolder(watch.place)
    try:
        say_waiting(folder, watch.waiter, watch.run_name)
    except (UserError, OSError):
        _say("refused")
        return
    _say("waiting")
    from ray_jobs.submit.jobs_api import JobsApi

    order = _wait(folder, watch, parent)
    if order == _FAREWELL:
        with contextlib.suppress(UserError, OSError):
            no_longer_waiting(folder, watch.waiter)
        return
    why = f"the run that waited for it ended with {order.removeprefix(_LEAVE).strip() or 'an error'}"
    stopped = False
    with contextlib.suppress(UserError):
        api = JobsApi(watch.address)
        stopped = leave(
            api, watch.submission_id, folder, watch.waiter, why if order else "the process that waited for it is gone"
        )
    _say("stopped" if stopped else "left")


def _wait(folder: JobFolder, watch: Watch, parent: int) -> str:
    """The parent's order; empty if the parent is gone."""
    _import_ray()
    renewed = time.monotonic()
    while os.getppid() == parent:
        if time.monotonic() - renewed >= RENEWED_EVERY_S:
            with contextlib.suppress(UserError, OSError):
                say_waiting(folder, watch.waiter, watch.run_name)
            renewed = time.monotonic()
        ready, _, _ = select.select([sys.stdin], [], [], 1.0)
        if ready:
            return _line(sys.stdin)
    return ""


def _import_ray() -> None:
    """Import it before it is needed, because that takes seconds."""
    import ray.job_submission  # noqa: F401


def _line(pipe: IO[str]) -> str:
    return pipe.readline().strip()


def _say(word: str) -> None:
    with contextlib.suppress(OSError):
        print(word, flush=True)


if __name__ == "__main__":
    main()
