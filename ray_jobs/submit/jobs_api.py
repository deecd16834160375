"""Ray's Jobs API at a dashboard, with one sentence for each kind of failure."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

FOLDER = "ropeway_folder"  # in a submission's metadata: the place of its `JobFolder`

_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray prefers them to the address that it is given
_TALKATIVE = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
_TIMEOUT_S = (5.0, 30.0)  # to connect, and between bytes; Ray's own client waits forever
_UPLOAD_TIMEOUT_S = (5.0, 300.0)


class NoAnswer(Exception):
    """The dashboard did not answer this request; it may answer the next."""


class AlreadyThere(Exception):
    """A job with that submission id exists already."""


@dataclass(frozen=True)
class Job:
    """One submitted job: its status is Ray's (PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED), `ended` says whether it is final."""

    submission_id: str
    status: str
    message: str
    metadata: dict[str, str]

    @property
    def ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class JobsApi:
    """The Jobs API of the cluster whose dashboard is at `address` (http or https).

    Ray's own settings apply: RAY_AUTH_MODE, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH.

    Raises:
        UserError: nothing answers there; it is not a Ray dashboard, has another release of Ray, or wants a token.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = _connected(address)

    def submit(self, submission_id: str, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> None:
        """Submit a shell command. Raises AlreadyThere or NoAnswer; UserError for a folder that cannot be uploaded."""
        with self._told():
            try:
                self._client.submit_job(
                    entrypoint=entrypoint, submission_id=submission_id, runtime_env=runtime_env, metadata=metadata
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    raise AlreadyThere(submission_id) from error
                raise
            except ValueError as error:
                raise UserError(f"ray.working_dir cannot be uploaded: {_short(error)}.") from error

    def jobs(self, prefix: str) -> list[Job]:
        """Every job whose submission id begins with `prefix`, ended ones too, as long as the cluster remembers it."""
        with self._told():
            return [_job(found) for found in self._client.list_jobs() if (found.submission_id or "").startswith(prefix)]

    def job(self, submission_id: str) -> Job | None:
        """The job, or None if the cluster knows none with that id."""
        with self._told():
            try:
                return _job(self._client.get_job_info(submission_id))
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise

    def belongs_elsewhere(self, submission_id: str, place: str) -> bool:
        """Whether the job with that id has another folder than `place`. False if the cluster cannot be asked."""
        with contextlib.suppress(NoAnswer, RuntimeError):
            job = self.job(submission_id)
            return job is not None and job.metadata.get(FOLDER) != place
        return False

    def log(self, submission_id: str) -> str:
        """Everything that the job has written so far."""
        with self._told():
            return self._client.get_job_logs(submission_id)

    def tail(self, submission_id: str) -> AsyncIterator[str]:
        """The job's log from its beginning, piece by piece; it may end before the job does."""
        return self._client.tail_job_logs(submission_id)

    def stop(self, submission_id: str, within_s: float) -> bool:
        """Ask the job to end and wait until it has; Ray kills it after 3 s. False if it is still alive after `within_s`.

        A job that does not exist yet is looked for again for some seconds, because its submission may still be on its way.
        """
        deadline = time.monotonic() + within_s
        missing_until = time.monotonic() + min(5.0, within_s)
        while time.monotonic() < deadline:
            with contextlib.suppress(NoAnswer, RuntimeError):
                job = self.job(submission_id)
                if job is None and time.monotonic() > missing_until:
                    return True
                if job is not None:
                    if job.ended:
                        return True
                    with self._told():
                        self._client.stop_job(submission_id)
            time.sleep(0.3)
        return False

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise _unauthorised(self.address) from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise NoAnswer(_short(error)) from error
        except RuntimeError as error:
            if "status code 5" in str(error):
                raise NoAnswer(_short(error)) from error
            raise


def _connected(address: str) -> JobSubmissionClient:
    import logging

    import packaging.version
    import ray
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, *args: Any, **options: Any) -> requests.Response:
            options.setdefault("timeout", _UPLOAD_TIMEOUT_S if method == "PUT" else _TIMEOUT_S)
            return super()._do_request(method, *args, **options)

    try:
        with _without_overriding():
            client = Client(address)
    except AuthenticationError as error:
        raise _unauthorised(address) from error
    except (ConnectionError, requests.RequestException) as error:
        raise UserError(
            f"The Ray dashboard at ray.address {address} does not answer: start the cluster, or correct the address."
        ) from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"What answers at ray.address {address} is not a Ray dashboard with a Jobs API ({_short(error)}): give "
            "http://HOST:8265 of the head node."
        ) from error
    theirs, ours = (packaging.version.parse(text) for text in (client._server_ray_version or "0", ray.__version__))
    if theirs.release[:2] != ours.release[:2]:
        raise UserError(
            f"The cluster at ray.address {address} runs Ray {theirs} and this is Ray {ours}: install the same release on both."
        )
    return client


@contextlib.contextmanager
def _without_overriding() -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _unauthorised(address: str) -> UserError:
    return UserError(
        f"The cluster at ray.address {address} wants another token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token."
    )


def _job(found: JobDetails) -> Job:
    return Job(found.submission_id or "", str(found.status.value), found.message or "", dict(found.metadata or {}))


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
