"""Follow the log of a submitted job, line by line, until the job has ended."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator

from data_schemas.errors import UserError
from ray_jobs.submit.jobs_api import Job, JobsApi, NoAnswer

_LAST_LINES = 5  # told to one who comes later
_STATUS_EVERY_S = 1.0
_SILENCE_S = 300.0  # a dashboard that restarts is waited for
_REST_OF_LOG_S = 5.0
_OF_RAY = ("Runtime env is setting up", "Running entrypoint for job ")

Tell = Callable[[str], None]


def follow(api: JobsApi, submission_id: str, tell: Tell, *, joined: bool) -> Job:
    """Tell the job's log as it grows, and return the job when it has ended.

    Args:
        joined: the job was there before: of what it has written so far only the last lines are told.

    Raises:
        UserError: the dashboard has not answered for some minutes, or has forgotten the job.
    """
    seen = _catch_up(api, submission_id, tell) if joined else 0
    with _Tail(api, submission_id, seen) as tail:
        answered = asked = time.monotonic()
        silent = False
        while True:
            _tell_line(tail.line(_STATUS_EVERY_S), tell)
            if time.monotonic() - asked < _STATUS_EVERY_S:
                continue
            asked = time.monotonic()
            try:
                job = api.job(submission_id)
            except NoAnswer as error:
                if not silent:
                    tell(f"The Ray dashboard at {api.address} does not answer; waiting for it: {error}")
                silent = True
                if time.monotonic() - answered > _SILENCE_S:
                    raise UserError(
                        f"The Ray dashboard at {api.address} has not answered for {_SILENCE_S:.0f} s: see after the cluster, then run "
                        f"again to attach to the job {submission_id}, if it still runs."
                    ) from error
                continue
            answered, silent = time.monotonic(), False
            if job is None:
                raise UserError(
                    f"The cluster at {api.address} knows the job {submission_id} no more, so its head was started anew: run again, "
                    "and training goes on from its last checkpoint."
                )
            if job.ended:
                tail.rest(tell)
                return job


def _catch_up(api: JobsApi, submission_id: str, tell: Tell) -> int:
    """Tell the last lines of what is written; how many characters are thereby seen."""
    try:
        log = api.log(submission_id)
    except NoAnswer:
        return 0
    whole = log[: log.rfind("\n") + 1]
    for line in whole.splitlines()[-_LAST_LINES:]:
        _tell_line(line, tell)
    return len(whole)


def _tell_line(line: str | None, tell: Tell) -> None:
    shown = (line or "").rstrip().rsplit("\r", 1)[-1]  # of a progress bar, what stands there last
    if shown and not any(text in shown for text in _OF_RAY):
        tell(shown)


class _Tail:
    """Reads the log in a thread of its own, so that the one who waits hears signals at once.

    Every new connection is sent the log from its beginning; what is seen is skipped by counting characters.
    """

    def __init__(self, api: JobsApi, submission_id: str, seen: int) -> None:
        self._api, self._id, self._seen = api, submission_id, seen
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._reading: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="job-log", daemon=True)
        self._ended = False

    def __enter__(self) -> _Tail:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)

    def line(self, timeout_s: float) -> str | None:
        """The next line; None where none comes in time."""
        if self._ended:
            time.sleep(timeout_s)
            return None
        try:
            found = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._ended = found is None
        return found

    def rest(self, tell: Tell) -> None:
        """Tell what an ended job has still written; Ray closes the connection behind it."""
        deadline = time.monotonic() + _REST_OF_LOG_S
        while not self._ended and time.monotonic() < deadline:
            _tell_line(self.line(0.2), tell)

    def _cancel(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    def _run(self) -> None:
        try:
            self._reading = self._loop.create_task(self._read())
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._reading)
        finally:
            self._loop.close()
            self._lines.put(None)

    async def _read(self) -> None:
        unfinished = ""
        while True:
            position = 0
            with contextlib.suppress(Exception):  # any broken connection: another is made below
                async for piece in self._api.tail(self._id):
                    position += len(piece)
                    new = piece[-(position - self._seen) :] if position > self._seen else ""
                    self._seen = max(self._seen, position)
                    *lines, unfinished = (unfinished + new).split("\n")
                    for line in lines:
                        self._lines.put(line)
            if await asyncio.to_thread(self._has_ended):
                if unfinished:
                    self._lines.put(unfinished)
                return
            await asyncio.sleep(1.0)

    def _has_ended(self) -> bool:
        try:
            job = self._api.job(self._id)
        except (NoAnswer, RuntimeError, UserError):
            return False
        return job is None or job.ended


def lines_of(log: str) -> Iterator[str]:
    """The lines of a job's log that are the job's own."""
    return (line for line in log.splitlines() if line.strip() and not any(text in line for text in _OF_RAY))
