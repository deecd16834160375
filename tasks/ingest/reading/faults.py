"""Whose fault it is that something cannot be read, and trying again where it is that of the way there.

An input that is to blame is quarantined. One that a network or this machine failed to bring must not be: its content would
be missing under the digest of the whole corpus, and no later run would look for it again.
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


def is_of_the_input(error: BaseException) -> bool:
    """Whether the input is to blame: it is not there, closed to this account, or no file."""
    found = _verdicts(error)
    return bool(found) and not any(found)


def is_of_the_way(error: BaseException) -> bool:
    """Whether a network, a disk or this machine's limits are to blame; neither this nor the input: a format, or a mistake."""
    return any(_verdicts(error))


class Tries:
    """Failures in a row of reading `name` (how reports call it)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._num_failed = 0

    def failed(self, error: Exception) -> None:
        """Wait before another try. Raises `error` if that is no use, UserError after the last try."""
        if not is_of_the_way(error):
            raise error
        if self._num_failed == len(WAITS_S):
            raise unread(self._name, error, self._num_failed + 1) from None  # what libraries say may hold secrets
        time.sleep(WAITS_S[self._num_failed])
        self._num_failed += 1

    def succeeded(self) -> None:
        self._num_failed = 0


def tried(name: str, action: Callable[[], T]) -> T:
    """What `action` returns, at the latest in the last of a few tries. Raises its error, or UserError after the last."""
    tries = Tries(name)
    while True:
        try:
            return action()
        except Exception as error:
            tries.failed(error)


def unread(name: str, error: Exception, num_tries: int = 1) -> UserError:
    """What to say where reading `name` failed for no fault of its own."""
    number = error.errno if isinstance(error, OSError) else None
    why = os.strerror(number) if isinstance(number, int) else type(error).__name__
    return UserError(
        f"{name} could not be read {f'in {num_tries} tries ' if num_tries > 1 else ''}({why}), for no fault of its own: see that "
        "its disk or service answers, then run again; finished parts are kept."
    )


class SteadyStream(io.RawIOBase):
    """A file for reading that is opened again, and read on where it was, when the way to it fails.

    `reopen` gives the file at its start; `can_seek`: whether it can go elsewhere in it, or must be read up to there.
    Errors of opening and reading are those of the file, or UserError after a few tries in a row.
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
        """Move a newly opened file to where the last one was."""
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
    """For each error in the chain that says whose fault it is: whether it is that of the way."""
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
