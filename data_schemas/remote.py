"""A storage root on another machine: objects below one fsspec prefix, such as `s3://bucket/folder`.

An object store has no rename. So an artifact's files are written under their final names, and its manifest last: readers
ignore everything without a manifest.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_schemas.addresses import holds_secret
from data_schemas.errors import UserError
from data_schemas.manifest import FileEntry, hash_file

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs"}
_WITH_FOLDERS = {
    "sftp",
    "ssh",
    "ftp",
    "smb",
    "hdfs",
    "arrow_hdfs",
    "webhdfs",
    "webdav",
    "local",
    "file",
}  # a bucket has no folders to make


class Remote:
    """Objects below `uri`. Credentials and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).

    UserError if the URI holds a secret, or its file system's package is not installed.
    """

    def __init__(self, uri: str) -> None:
        if holds_secret(uri):
            raise UserError(
                "The storage URI contains credentials: give them in the environment (AWS_ACCESS_KEY_ID, ...) instead."
            )
        self.uri = uri.rstrip("/")
        with told(self.uri):
            import fsspec

            self._fs, self._path = fsspec.core.url_to_fs(self.uri, use_listings_cache=False, skip_instance_cache=True)

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.uri,)

    def __copy__(self) -> Remote:
        other = object.__new__(Remote)
        other.__dict__.update(self.__dict__)
        return other

    def below(self, folder: str) -> Remote:
        """The objects below `folder` as a root of their own, with the same client."""
        other = copy.copy(self)
        other.uri, other._path = f"{self.uri}/{folder}", self.at(folder)
        return other

    def at(self, relative: str) -> str:
        return f"{self._path}/{relative}"

    def read(self, relative: str) -> bytes | None:
        """Content of an object, or None if it does not exist."""
        with told(self.uri):
            try:
                return bytes(self._fs.cat_file(self.at(relative)))
            except FileNotFoundError:
                return None

    def refuse_unwritable(self) -> None:
        """UserError if nothing can be written; call it before any work."""
        self.write(".ropeway", b"storage root\n")

    def write(self, relative: str, content: bytes) -> None:
        """Write one object; readers see the old content or the new."""
        with told(self.uri):
            self._make_folder(relative)
            self._fs.pipe_file(self.at(relative), content)

    def create(self, relative: str, content: bytes) -> bool:
        """Write one object that must not exist yet; False if it exists.

        With conditional writes (S3, GCS) only one of two writers wins. Other stores are only asked before the write.
        False may also mean that a first try worked and its answer was lost: compare the content.
        """
        with told(self.uri):
            self._make_folder(relative)
            try:
                self._fs.pipe_file(self.at(relative), content, mode="create")
            except (OSError, TypeError) as error:
                if isinstance(error, FileExistsError) or _condition_failed(error):
                    return False
                if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                    raise
                if self._fs.exists(self.at(relative)):
                    return False
                self._fs.pipe_file(self.at(relative), content)
        return True

    def swap(self, relative: str, content: bytes, seen: bytes | None) -> bool:
        """Replace an object whose content is `seen` (None: it does not exist); False if another writer was faster.

        S3 decides this itself, by the ETag of `seen`. Other stores are only asked before the write.
        """
        if seen is None:
            return self.create(relative, content)
        with told(self.uri):
            condition = {}
            if "s3" in self._fs.protocol:
                condition = {"IfMatch": self._fs.info(self.at(relative))["ETag"]}
            if self.read(relative) != seen:
                return False
            try:
                self._fs.pipe_file(self.at(relative), content, **condition)
            except OSError as error:
                if _condition_failed(error):
                    return False
                if not condition or error.errno != errno.ENOSYS:
                    raise
                self._fs.pipe_file(self.at(relative), content)
        return True

    def sha256(self, relative: str) -> str:
        """SHA-256 of an object's content, in hex, read from the store."""
        with told(self.uri), self._fs.open(self.at(relative), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def written_at(self, relative: str) -> datetime | None:
        """When the object was written; None if the store does not say."""
        with told(self.uri):
            return _written(self._fs.info(self.at(relative)))

    def exists(self, relative: str) -> bool:
        with told(self.uri):
            return bool(self._fs.exists(self.at(relative)))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of each object below `folder`, by its path relative to it."""
        prefix = self.at(folder).rstrip("/") + "/"
        with told(self.uri):
            found: dict[str, Any] = self._fs.find(prefix, detail=True)
        return {name.removeprefix(prefix): int(info["size"]) for name, info in found.items() if name.startswith(prefix)}

    def upload(self, local: Path, relative: str) -> None:
        with told(self.uri):
            self._make_folder(relative)
            self._fs.put_file(str(local), self.at(relative))

    def download(self, relative: str, local: Path) -> None:
        """Download one object. The file appears under its name only when it is complete."""
        local.parent.mkdir(parents=True, exist_ok=True)
        staged = local.with_name(f".{local.name}.{os.getpid()}")
        try:
            with told(self.uri):
                self._fs.get_file(self.at(relative), str(staged))
            os.replace(staged, local)
        finally:
            staged.unlink(missing_ok=True)

    def remove(self, folder: str) -> None:
        with told(self.uri):
            if self._fs.exists(self.at(folder)):
                self._fs.rm(self.at(folder), recursive=True)

    def remove_stale(self, folder: str, older_than_s: float) -> None:
        """Remove what is directly below `folder` and was not written for `older_than_s` seconds; nothing without known times."""
        prefix = self.at(folder) + "/"
        with told(self.uri):
            found: dict[str, Any] = self._fs.find(prefix, detail=True)
        newest: dict[str, float] = {}
        for name, info in found.items():
            written = _written(info)
            child = name.removeprefix(prefix).split("/")[0]
            at = written.timestamp() if written else time.time()
            newest[child] = max(newest.get(child, 0.0), at)
        for child, at in newest.items():
            if time.time() - at > older_than_s:
                self.remove(f"{folder}/{child}")

    def upload_files(self, directory: Path, folder: str, entries: Sequence[FileEntry]) -> None:
        """Upload the listed files, except those that an interrupted run has already uploaded."""
        there = self.sizes(folder)
        for entry in entries:
            if there.get(entry.path) != entry.num_bytes or not self._is_same(f"{folder}/{entry.path}", directory / entry.path):
                self.upload(directory / entry.path, f"{folder}/{entry.path}")

    def _make_folder(self, relative: str) -> None:
        if urlsplit(self.uri.rpartition("::")[2]).scheme in _WITH_FOLDERS:
            self._fs.makedirs(self.at(relative).rpartition("/")[0], exist_ok=True)

    def _is_same(self, relative: str, local: Path) -> bool:
        return self.sha256(relative) == hash_file(local)


def _written(info: dict[str, Any]) -> datetime | None:
    named = ("LastModified", "last_modified", "updated", "created")
    return next((info[name] for name in named if isinstance(info.get(name), datetime)), None)


def _condition_failed(error: BaseException) -> bool:
    """Whether S3 refused a conditional write: 412, or 409 for one that met another in flight."""
    answer = getattr(error.__cause__ or error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Turn an exception of a file system into a UserError that names the URI."""
    scheme = urlsplit(uri).scheme
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        how = f"pip install {_PACKAGES[scheme]}" if scheme in _PACKAGES else f"install its fsspec package ({error})"
        raise UserError(f"{uri} needs a package that is not installed: {how}.") from error
    except ValueError as error:
        raise UserError(f"{uri} cannot be used as storage: {_short(error)}.") from error
    except OSError as error:
        raise UserError(f"{uri} does not answer as storage: {_short(error)}; check the address and the credentials.") from error
    except Exception as error:
        if not type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "gcsfs", "google")):
            raise
        raise UserError(f"{uri} does not answer as storage: {_short(error)}; check the address and the credentials.") from error


def _short(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
