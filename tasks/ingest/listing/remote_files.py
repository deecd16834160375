"""Which files a source behind an fsspec URI consists of: a bucket, a web server, a zip file anywhere."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from data_schemas.addresses import is_remote, without_secrets
from data_schemas.errors import UserError
from data_schemas.params import DEFAULT_INCLUDE, CorpusSource
from tasks.ingest.globs import any_of, included, max_depth
from tasks.ingest.listing.local_files import in_storage, refuse_no_document
from tasks.ingest.locations import Location, parse_location
from tasks.ingest.reading.files import SourceFile, open_archive
from tasks.ingest.reading.records import Refused, Unmatched

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_CONTENT_STAMPS = ("ETag", "etag", "md5Hash", "Content-MD5", "content_md5", "Digest", "checksum", "sha")
_TIME_STAMPS = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")
_FEW_FOLDERS, _FEW_NAMES = 100, 20_000  # looked at before a run; ingest lists everything
_REFUSED_ACCESS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "PermissionError",
    "DefaultCredentialsError",
    "RefreshError",
)


def list_remote(index: int, source: CorpusSource, leave_out: str | None) -> Iterator[SourceFile | Refused | Unmatched]:
    """Every matching file, unsorted; a Refused for each name that leads out of the source's folder; an Unmatched for each
    file that matches neither include nor exclude.

    `leave_out`: URI of a folder that is never part of a corpus.
    Raises UserError for a source that does not exist, that this machine or account cannot read, or a folder in `leave_out`.
    """
    location = parse_location(source.uri)
    with _explaining(index, source, location):
        if location.is_zip:
            yield from _list_zip(index, source, location)
        else:
            yield from _list_system(index, source, location, leave_out)


def check_remote(index: int, source: CorpusSource) -> None:
    """UserError for a source that does not exist. Does not list its content."""
    from fsspec.core import url_to_fs

    location = parse_location(source.uri)
    with _explaining(index, source, location):
        system, root = url_to_fs(location.archive if location.is_zip else location.filesystem)
        if location.is_zip:
            system.info(root)
        elif not _is_web_folder(location) and system.info(root)["type"] != "directory":
            refuse_no_document(index, source, _name_of(root))


def holds_match(index: int, source: CorpusSource) -> bool | None:
    """Whether a file below a remote folder matches; None if that takes longer than a look at a few folders, or is not a folder."""
    from fsspec.core import url_to_fs

    location = parse_location(source.uri)
    with _explaining(index, source, location):
        if location.is_zip:
            return (
                None
                if is_remote(location.archive)
                else any(not isinstance(f, Unmatched) for f in list_remote(index, source, None))
            )
        system, root = url_to_fs(location.filesystem)
        if not location.pattern and not _is_web_folder(location) and system.info(root)["type"] != "directory":
            return True
        wanted, base = _matcher(source, location), f"{root.rstrip('/')}/" if root else ""
        num_names = 0
        for number, (folder, _, names) in enumerate(system.walk(root)):
            for name in names:
                if wanted(f"{folder}/{name}".removeprefix(base)):
                    return True
            num_names += len(names)
            if number >= _FEW_FOLDERS or num_names >= _FEW_NAMES:
                return None
    return False


def _list_system(
    index: int, source: CorpusSource, location: Location, leave_out: str | None
) -> Iterator[SourceFile | Refused | Unmatched]:
    from fsspec.core import url_to_fs

    system, root = url_to_fs(location.filesystem)
    system.invalidate_cache()
    if not location.pattern and not _is_web_folder(location):
        info = system.info(root)
        if info["type"] != "directory":
            refuse_no_document(index, source, _name_of(root))
            yield _file(index, _name_of(root), without_secrets(source.uri), root, location.filesystem, info)
            return
    wanted = _matcher(source, location)
    left_out = _below(system, leave_out) if leave_out and leave_out.startswith(f"{location.protocol}://") else None
    base = f"{root.rstrip('/')}/" if root or system.root_marker else ""
    if leave_out and left_out and base.startswith(left_out):
        raise in_storage(index, source, without_secrets(leave_out))
    prefix = without_secrets(source.uri[: -len(location.pattern)] if location.pattern else source.uri).rstrip("/") + "/"
    depth = max_depth((location.pattern,) if location.pattern else source.include) if source.repository == "no" else None
    for name, info in system.find(root, maxdepth=None if depth is None else depth + 1, detail=True).items():
        relative = name.removeprefix(base)
        if left_out and name.startswith(left_out):
            continue
        if not name.startswith(base) or _leads_out(relative):
            yield Refused(f"{prefix}{relative}", 0, "outside_root", "a name that leads out of the source's folder")
        elif wanted(relative):
            info = system.info(name) if info.get("size") is None else info
            yield _file(index, relative, f"{prefix}{relative}", name, location.filesystem, info)
        elif wanted(relative) is None:
            yield Unmatched(relative)


def _list_zip(index: int, source: CorpusSource, location: Location) -> Iterator[SourceFile | Refused | Unmatched]:
    """Members of a zip file. Nothing is ever unpacked to a path that a member names."""
    folder = location.root.strip("/")
    base = f"{folder}/" if folder else ""
    wanted = _matcher(source, location)
    shown = without_secrets(location.archive)
    archive_stamp = _archive_stamp(location.archive)
    with open_archive(location.archive) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        is_single = not location.pattern and any(member.filename == folder for member in members)
        if is_single:
            refuse_no_document(index, source, folder)
        num_found = 0
        for member in members:
            name = member.filename
            if not (name == folder if is_single else name.startswith(base)):
                continue
            num_found += 1
            relative = name.rsplit("/", 1)[-1] if is_single else name.removeprefix(base)
            uri = f"zip://{name}::{shown}"
            if _leads_out(name):
                yield Refused(uri, 0, "outside_root", "a name that leads out of the archive")
            elif is_single or wanted(relative):
                yield SourceFile(
                    source_index=index,
                    relative=relative,
                    uri=uri,
                    location=name,
                    archive=location.archive,
                    num_bytes=member.file_size,
                    stored_bytes=member.compress_size,
                    stamp=archive_stamp,
                )
            elif wanted(relative) is None:
                yield Unmatched(relative)
        if folder and not num_found:
            raise FileNotFoundError(folder)


def _matcher(source: CorpusSource, location: Location) -> Callable[[str], bool | None]:
    """Whether a file is wanted; None for a file in a folder that matches neither include nor exclude."""
    patterns = (location.pattern,) if location.pattern else source.include
    if source.repository != "no" and patterns == DEFAULT_INCLUDE:
        patterns = ("**/*",)
    include, exclude = included(patterns), any_of(source.exclude)
    not_included = False if location.pattern else None

    def wanted(relative: str) -> bool | None:
        if exclude.fullmatch(relative):
            return False
        return True if include.fullmatch(relative) else not_included

    return wanted


def _file(index: int, relative: str, uri: str, path: str, filesystem: str, info: dict[str, Any]) -> SourceFile:
    size = info.get("size")
    return SourceFile(index, relative, uri, path, filesystem, num_bytes=size, stamp=_stamp(info))


def _name_of(path: str) -> str:
    """A file's name; a question mark in a web address begins its query."""
    return path.split("?")[0].rstrip("/").rsplit("/", 1)[-1]


def _stamp(info: dict[str, Any]) -> str:
    """The file system's hash or tag of the content, else its time, each with the size; empty without either."""
    for names in (_CONTENT_STAMPS, _TIME_STAMPS):
        if name := next((name for name in names if info.get(name)), None):
            return f"{name} {info[name]} {info.get('size')}"
    return ""


def _archive_stamp(uri: str) -> str:
    """A stamp of the whole archive's content; the CRCs of its members are too weak to serve as one."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(uri)
    system.invalidate_cache()
    if is_remote(uri) and (stamp := _stamp(system.info(path))):
        return stamp
    with system.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _leads_out(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")


def _below(system: Any, uri: str) -> str:
    return f"{str(system._strip_protocol(uri)).rstrip('/')}/"


def _is_web_folder(location: Location) -> bool:
    """A web address that ends in a slash or a pattern is a page that lists files: web servers do not mark folders."""
    return location.protocol in ("http", "https") and (location.root.endswith("/") or bool(location.pattern))


@contextlib.contextmanager
def _explaining(index: int, source: CorpusSource, location: Location) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _explained(index, source, location, error) from None  # the library's own words may hold secrets


def _explained(index: int, source: CorpusSource, location: Location, error: Exception) -> UserError:
    where = f"corpus.sources[{index}] {without_secrets(source.uri)!r}"
    # In a chain the missing package is the one for the archive's own location.
    protocol = parse_location(location.archive).protocol if location.is_zip else location.protocol
    if isinstance(error.__cause__, Exception) and type(error.__cause__).__module__.startswith("aiohttp"):
        error = error.__cause__  # fsspec calls every failure of a web server a missing file
    status = getattr(error, "status", None)
    if isinstance(error, ImportError):
        package = _PACKAGES.get(protocol, f"fsspec[{protocol}]")
        return UserError(f"{where} needs a package that is not installed: run `pip install '{package}'`.")
    if isinstance(error, FileNotFoundError) or status == 404:
        return UserError(f"{where} does not exist: correct the URI.")
    if type(error).__name__ in _REFUSED_ACCESS or status in (401, 403):
        return UserError(
            f"{where} needs credentials that are missing or not sufficient: set them in the environment "
            f"as {'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY' if protocol.startswith('s3') else 'that service documents'}."
        )
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return UserError(f"{where} has an unknown scheme: give a path, or a URI that fsspec knows such as s3:// or https://.")
    return UserError(f"{where} cannot be listed ({type(error).__name__}): check the URI and that the service answers.")
