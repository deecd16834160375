"""Classify read errors: bad input is quarantined; a failing transport is retried, then stops the run.

An input that a network or this machine fails to deliver must not be quarantined: its content would be missing from an
artifact with the digest of the whole corpus, and no later run would read it again.
"""

import contextlib
import errno
import gzip
import io
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from data_schemas.errors import UserError

WAITS_S = (0.2, 1.0, 5.0)  # before each further try

_OF_THE_INPUT = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENXIO,  # opening a socket
        errno.ENODEV,
    }
)
_KINDS_OF_THE_INPUT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # libraries give no number
_STATUSES_OF_THE_INPUT = (403, 404, 410)
_NETWORK_LIBRARIES = ("aiohttp", "aiobotocore", "botocore", "google", "httpcore", "httpx", "requests", "urllib3")

T = TypeVar("T")


def is_bad_input(error: BaseException) -> bool:
    """Whether the input is at fault: it does not exist, cannot be accessed by this account, or is not a file."""
    found = _verdicts(error)
    return bool(found) and not any(found)


def is_transport_failure(error: BaseException) -> bool:
    """Whether a network, a disk or a limit of this machine is at fault.

    An error can be neither this nor bad input: a damaged format, or a bug.
    """
    return any(_verdicts(error))


class Tries:
    """Counts consecutive failures to read `name`, which is how reports call the input."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._num_failed = 0

    def failed(self, error: Exception) -> None:
        """Wait before another try. Raises `error` if it is not a transport failure, UserError after the last try."""
        if not is_transport_failure(error):
            raise error
        if self._num_failed == len(WAITS_S):
            raise unread(self._name, error, self._num_failed + 1) from None  # what libraries say may hold secrets
        time.sleep(WAITS_S[self._num_failed])
        self._num_failed += 1

    def succeeded(self) -> None:
        self._num_failed = 0


def tried(name: str, action: Callable[[], T]) -> T:
    """The result of `action`, which is tried again after transport failures. Raises other errors; UserError after the last try."""
    tries = Tries(name)
    while True:
        try:
            return action()
        except Exception as error:
            tries.failed(error)


def unread(name: str, error: Exception, num_tries: int = 1) -> UserError:
    """The error for an input that could not be delivered."""
    number = error.errno if isinstance(error, OSError) else None
    why = os.strerror(number) if isinstance(number, int) else type(error).__name__
    return UserError(
        f"{name} could not be read {f'in {num_tries} tries ' if num_tries > 1 else ''}({why}), which is not a problem of "
        "the input: check that its disk or service works, then run again; finished parts are kept."
    )


class SteadyStream(io.RawIOBase):
    """A file that is reopened after a transport failure, and read on from the same position.

    `reopen` opens the file at its start. `can_seek`: whether the file can seek; otherwise it is read up to the position.
    Raises the file's own errors, or UserError after a few failed tries in a row.
    """

    def __init__(self, name: str, reopen: Callable[[], BinaryIO], can_seek: bool) -> None:
        super().__init__()
        self._tries = Tries(name)
        self._reopen, self._can_seek = reopen, can_seek
        self._position = 0
        self._stream: BinaryIO | None = None
        self._tried(lambda stream: None)

    def read(self, size: int | None = -1) -> bytes:
        data: bytes = self._tried(lambda stream: stream.read(-1 if size is None else size))
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(memoryview(buffer).cast("B")))
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(self.read, b""))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset, whence = self._position + offset, os.SEEK_SET
        self._position = self._tried(lambda stream: stream.seek(offset, whence))
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._can_seek

    def close(self) -> None:
        self._drop()
        super().close()

    def _tried(self, action: Callable[[BinaryIO], T]) -> T:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        while True:
            try:
                if self._stream is None:
                    self._stream = self._reopen()
                    self._go_on(self._stream)
                done = action(self._stream)
            except Exception as error:
                self._drop()
                self._tries.failed(error)
            else:
                self._tries.succeeded()
                return done

    def _go_on(self, stream: BinaryIO) -> None:
        """Move a reopened file to the current position."""
        if self._can_seek and self._position:
            stream.seek(self._position)
            return
        left = self._position
        while left > 0 and (skipped := stream.read(min(left, 1 << 20))):
            left -= len(skipped)

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.close()


def _verdicts(error: BaseException) -> list[bool]:
    """For each error in the chain that can be classified: whether it is a transport failure."""
    return [verdict for one in _chain(error) if (verdict := _verdict(one)) is not None]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _verdict(error: BaseException) -> bool | None:
    if (status := _status(error)) is not None:
        return status not in _STATUSES_OF_THE_INPUT
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES:
        return True
    if not isinstance(error, OSError) or isinstance(error, io.UnsupportedOperation | gzip.BadGzipFile):
        return None
    if error.errno is not None:
        return error.errno not in _OF_THE_INPUT
    return False if isinstance(error, _KINDS_OF_THE_INPUT) else None


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of a web library, of botocore or of gcsfs."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None) or getattr(error, "status", None) or getattr(error, "code", None)
    return found if isinstance(found, int) and 400 <= found < 600 else None
