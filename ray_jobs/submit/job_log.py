"""Follow the log of a submitted job until the job has ended: its events as events, every other line as a message."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time

from data_schemas.errors import UserError
from data_schemas.progress import ProgressCallback, ProgressEvent, TrainingStarted, decode, message
from ray_jobs.submit.jobs_api import Job, JobsApi, NoAnswer

_LAST_LINES = 5  # what a run that attaches later is shown of the log so far
_STATUS_EVERY_S = 1.0
_SILENCE_S = 300.0  # how long a dashboard may take to restart
_REST_OF_LOG_S = 5.0
_OF_RAY = ("Runtime env is setting up", "Running entrypoint for job ")


def follow(api: JobsApi, submission_id: str, progress: ProgressCallback, *, joined: bool) -> Job:
    """Report the job's log as it grows, and return the job when it has ended.

    Args:
        joined: the job was running before; only the last lines of the log so far are reported.

    Raises:
        UserError: the dashboard has not answered for some minutes, or has forgotten the job.
    """
    seen = _catch_up(api, submission_id, progress) if joined else 0
    with _Tail(api, submission_id, seen) as tail:
        answered = asked = time.monotonic()
        silent = False
        while True:
            _report(tail.line(_STATUS_EVERY_S), progress)
            if time.monotonic() - asked < _STATUS_EVERY_S:
                continue
            asked = time.monotonic()
            try:
                job = api.job(submission_id)
            except NoAnswer as error:
                if not silent:
                    progress(message(f"The Ray dashboard at {api.address} does not answer; waiting for it: {error}"))
                silent = True
                if time.monotonic() - answered > _SILENCE_S:
                    raise UserError(
                        f"The Ray dashboard at {api.address} has not answered for {_SILENCE_S:.0f} s: check the cluster, then run "
                        f"again; if the job {submission_id} still runs, the new run attaches to it."
                    ) from error
                continue
            answered, silent = time.monotonic(), False
            if job is None:
                raise UserError(
                    f"The cluster at {api.address} no longer knows the job {submission_id}, so its head node was restarted: run "
                    "again, and training continues from its last checkpoint."
                )
            if job.ended:
                tail.rest(progress)
                return job


def _catch_up(api: JobsApi, submission_id: str, progress: ProgressCallback) -> int:
    """Report where the job trains and the last lines that it has written; returns the number of characters read."""
    try:
        log = api.log(submission_id)
    except NoAnswer:
        return 0
    whole = log[: log.rfind("\n") + 1]
    events = [event for line in whole.split("\n") if (event := event_of(line)) is not None]
    started = [event for event in events[:-_LAST_LINES] if isinstance(event, TrainingStarted)]
    for event in (*started[-1:], *events[-_LAST_LINES:]):
        progress(event)
    return len(whole)


def _report(line: str | None, progress: ProgressCallback) -> None:
    if line is not None and (event := event_of(line)) is not None:
        progress(event)


def event_of(line: str) -> ProgressEvent | None:
    """The event in a line of a job's log, or the line itself as a message; None for an empty line or one of Ray's own."""
    shown = line.rstrip().rsplit("\r", 1)[-1]  # of a progress bar, its last state
    if (event := decode(shown)) is not None:
        return event
    return message(shown) if shown and not any(text in shown for text in _OF_RAY) else None


class _Tail:
    """Reads the log in a thread of its own, so that the waiting thread reacts to signals at once.

    Ray sends the log from its beginning over every new connection. What was read before is skipped by counting characters.
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
        """The next line; None if none comes in time."""
        if self._ended:
            time.sleep(timeout_s)
            return None
        try:
            found = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._ended = found is None
        return found

    def rest(self, progress: ProgressCallback) -> None:
        """Report the last lines of an ended job; Ray closes the connection after them."""
        deadline = time.monotonic() + _REST_OF_LOG_S
        while not self._ended and time.monotonic() < deadline:
            _report(self.line(0.2), progress)

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
            with contextlib.suppress(Exception):  # any broken connection; the loop makes a new one
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
