"""Opening a listed file, local or through fsspec. Pipes and devices are refused without waiting for them."""

import contextlib
import lzma
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast

from data_schemas.addresses import without_secrets
from data_schemas.errors import UserError
from tasks.ingest.reading.compression import BLOCK_BYTES, inflated, refuse_bomb
from tasks.ingest.reading.faults import SteadyStream, is_bad_input, tried, unread
from tasks.ingest.reading.file_formats import compression_of
from tasks.ingest.reading.records import Unusable

_SEQUENTIAL_PROTOCOLS = ("http", "https")  # not every server gives parts of a file
_REMOTE_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file to read; it can travel to another process.

    relative      POSIX path below the source's root
    uri           its name in reports: starts as the user wrote it, without secrets
    location      path on its file system
    filesystem    fsspec URI of that file system; empty: the local one
    archive       URI of the zip file that contains it; empty: none
    num_bytes     size; None: unknown
    stored_bytes  compressed size in the archive
    stamp         the file system's hash, tag or time of the content; empty: none, so the content is hashed
    """

    source_index: int
    relative: str
    uri: str
    location: str = field(repr=False)
    filesystem: str = field(default="", repr=False)
    archive: str = field(default="", repr=False)
    num_bytes: int | None = None
    stored_bytes: int | None = None
    stamp: str = ""

    @property
    def is_local(self) -> bool:
        return not self.filesystem and not self.archive

    @property
    def is_seekable(self) -> bool:
        """Whether any part of it can be read without reading everything before."""
        return self.is_local or (not self.archive and self.filesystem.split("://")[0] not in _SEQUENTIAL_PROTOCOLS)


class Files:
    """Opens listed files. A context manager; zip archives stay open until its end, for their next members."""

    def __init__(self, max_expansion: float) -> None:
        self.max_expansion = max_expansion
        self._kept = contextlib.ExitStack()
        self._archives: dict[str, zipfile.ZipFile] = {}

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    @contextlib.contextmanager
    def opened(self, file: SourceFile) -> Iterator[BinaryIO]:
        """The file's stored bytes. Raises Unusable for a bad file, also while it is open; UserError for a transport failure
        that lasts."""
        with _refusing(file):
            if file.archive:
                stream = cast(BinaryIO, self._archive(file.archive).open(file.location))
            else:
                reopen = partial(open_regular, file.location) if file.is_local else partial(_open_remote, file)
                stream = cast(BinaryIO, SteadyStream(file.uri, reopen, file.is_seekable))
            with stream:
                yield stream

    def stored_blocks(self, file: SourceFile, span: tuple[int, int] | None = None) -> Iterator[bytes]:
        """The file's bytes as stored, or the bytes [start, end) of them, at most BLOCK_BYTES at a time. Raises Unusable."""
        with self.opened(file) as stream:
            if span:
                stream.seek(span[0])
            left = span[1] - span[0] if span else None
            while left is None or left > 0:
                block = stream.read(BLOCK_BYTES if left is None else min(left, BLOCK_BYTES))
                if not block:
                    break
                left = None if left is None else left - len(block)
                yield block

    def content_blocks(self, file: SourceFile, span: tuple[int, int] | None = None) -> Iterator[bytes]:
        """The file's content, decompressed where its name says so. Raises Unusable."""
        blocks = self.stored_blocks(file, span)
        if file.stored_bytes is not None:
            blocks = _guarded(blocks, file.stored_bytes, self.max_expansion)
        suffix = compression_of(file.relative)
        return inflated(blocks, suffix, file.num_bytes, self.max_expansion) if suffix else blocks

    @contextlib.contextmanager
    def local_path(self, file: SourceFile) -> Iterator[str]:
        """A local file with the content: the file itself, or a temporary copy of one that is compressed or remote."""
        if file.is_local and not compression_of(file.relative):
            with self.opened(file):  # refuses what is no regular file
                pass
            yield file.location
            return
        with tried(f"A copy of {file.uri}", lambda: tempfile.NamedTemporaryFile("w+b", prefix="ropeway-")) as copy:
            for block in self.content_blocks(file):
                copy.write(block)
            copy.flush()
            yield copy.name

    def _archive(self, uri: str) -> zipfile.ZipFile:
        if uri not in self._archives:
            self._archives[uri] = self._kept.enter_context(open_archive(uri))
        return self._archives[uri]


@contextlib.contextmanager
def open_archive(uri: str) -> Iterator[zipfile.ZipFile]:
    """The zip file at `uri`, local or remote. Copied to a local file first if the web server does not serve parts of files."""
    import fsspec

    shown = without_secrets(uri)

    def reopen(**options: int) -> BinaryIO:
        return cast(BinaryIO, fsspec.open(uri, "rb", **options).open())

    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(SteadyStream(shown, reopen, can_seek=True))
        try:
            archive = zipfile.ZipFile(cast(BinaryIO, stream))
        except ValueError:
            copy = stack.enter_context(tempfile.TemporaryFile(prefix="ropeway-"))
            shutil.copyfileobj(stack.enter_context(SteadyStream(shown, partial(reopen, block_size=0), can_seek=False)), copy)
            archive = zipfile.ZipFile(copy)
        yield stack.enter_context(archive)


def open_regular(path: str) -> BinaryIO:
    """Open a local file for reading. Unusable for a pipe or a device, which might never end; opening does not wait for one."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Unusable("unreadable", "not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _open_remote(file: SourceFile) -> BinaryIO:
    from fsspec.core import url_to_fs

    system, _ = url_to_fs(file.filesystem)
    if file.is_seekable:
        stream: BinaryIO = system.open(file.location, "rb", block_size=_REMOTE_BLOCK_BYTES, cache_type="readahead")
    else:
        stream = system.open(file.location, "rb", block_size=0)
    return stream


@contextlib.contextmanager
def _refusing(file: SourceFile) -> Iterator[None]:
    """Turn errors of a bad file into Unusable, and transport failures of a remote one into UserError.

    Messages of remote libraries may hold secrets, so only the kind of error is reported.
    """
    try:
        yield
    except (Unusable, UserError, MemoryError):
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise Unusable("corrupt", str(error)) from error
    except EOFError as error:
        raise Unusable("truncated", "the archive ends too early") from error
    except Exception as error:
        if is_bad_input(error):
            strerror = error.strerror if isinstance(error, OSError) else None
            raise Unusable("unreadable", strerror or type(error).__name__) from error
        if file.archive and _is_of_an_archive(error):
            raise Unusable("unreadable", f"reading it failed with {type(error).__name__}") from error
        if file.is_local:
            raise
        raise unread(file.uri, error) from None


def _is_of_an_archive(error: Exception) -> bool:
    """Whether decompression says that a member is damaged, encrypted or packed in an unknown way."""
    if isinstance(error, OSError):
        return error.errno is None  # as bz2 reports damage
    return isinstance(error, RuntimeError | ValueError | LookupError)


def _guarded(blocks: Iterator[bytes], stored_bytes: int, max_expansion: float) -> Iterator[bytes]:
    num_bytes = 0
    for block in blocks:
        num_bytes += len(block)
        refuse_bomb(num_bytes, stored_bytes, max_expansion)
        yield block
