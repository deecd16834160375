"""Which local files a source consists of."""

import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_schemas.addresses import local_path, without_secrets
from data_schemas.errors import UserError
from data_schemas.params import DEFAULT_INCLUDE, CorpusSource
from tasks.ingest.globs import any_of, has_magic, included, max_depth, split_pattern
from tasks.ingest.reading import repository
from tasks.ingest.reading.faults import is_bad_input, tried, unread
from tasks.ingest.reading.file_formats import instead_of
from tasks.ingest.reading.files import SourceFile
from tasks.ingest.reading.records import Refused, Unmatched

# Folders of the running Python: the URI, the names that sysconfig has for them, and what in them is not part of the source.
# Installed packages live inside the standard library's folder. Packages with compiled code have a folder of their own on some systems.
_OF_PYTHON = {
    "stdlib:": (("stdlib",), ("**/site-packages/**", "**/dist-packages/**", "**/__pycache__/**")),
    "packages:": (("purelib", "platlib"), ("**/__pycache__/**",)),
}


@dataclass(frozen=True)
class _Root:
    """A folder to walk: where it is, how the user named it, and which of its files count."""

    folder: Path
    prefix: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    pruned: frozenset[str] = frozenset()  # names of folders that are not walked
    is_pattern: bool = False  # the user named files by a pattern, so other files are not counted as unmatched


def list_local(index: int, source: CorpusSource, leave_out: Path | None) -> Iterator[SourceFile | Refused | Unmatched]:
    """Every matching file, unsorted; a Refused for each link that leads out of the source's folder; an Unmatched for each
    file that matches neither include nor exclude.

    Symbolic links to folders are not followed. `leave_out`: a folder that is never part of a corpus.
    Raises UserError for a source that does not exist or is a folder in `leave_out`.
    """
    if is_of_python(source):
        roots = _of_python(index, source)
    else:
        named = _locate(index, source)
        if isinstance(named, SourceFile):
            yield named
            return
        roots = [named]
    left_out = leave_out.resolve() if leave_out else None
    for root in roots:
        if left_out and root.folder.is_relative_to(left_out):
            raise in_storage(index, source, str(left_out))
        yield from _walk(index, root, left_out)


def is_of_python(source: CorpusSource) -> bool:
    """Whether the source is `stdlib:` or `packages:`."""
    return source.uri.startswith(tuple(_OF_PYTHON))


def check_local(index: int, source: CorpusSource) -> None:
    """UserError for a source that does not exist."""
    if is_of_python(source):
        _of_python(index, source)
    else:
        _locate(index, source)


def in_storage(index: int, source: CorpusSource, storage: str) -> UserError:
    """The error for a source inside the storage root."""
    return UserError(
        f"corpus.sources[{index}] {without_secrets(source.uri)!r} lies in the storage root {storage}, where runs write: move it "
        "out of there, or choose another `storage`."
    )


def refuse_no_document(index: int, source: CorpusSource, name: str) -> None:
    """UserError for a single named file that would become one document of raw markup, or without any text."""
    if source.repository == "no" and (advice := instead_of(name)):
        where = f"corpus.sources[{index}] {without_secrets(source.uri)!r}"
        raise UserError(f"{where} is neither a text file nor a format of records that Ropeway reads: {advice}.")


def printable(name: str) -> str:
    """A file name as valid Unicode: bytes that are not UTF-8, which Python gives as lone surrogates, become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def _of_python(index: int, source: CorpusSource) -> list[_Root]:
    """The folders of `stdlib:` or `packages:`. UserError for one with a name behind it, or if none of them is there."""
    uri, (names, left_out) = next((uri, what) for uri, what in _OF_PYTHON.items() if source.uri.startswith(uri))
    if rest := source.uri.removeprefix(uri).strip("/"):
        raise UserError(
            f"corpus.sources[{index}] {source.uri!r} cannot name a part: write uri {uri!r} and include ['{rest}/**/*.py'] instead."
        )
    include = ("**/*.py",) if source.include == DEFAULT_INCLUDE else source.include
    folders = dict.fromkeys(Path(sysconfig.get_paths()[name]).resolve() for name in names)
    roots = [_Root(folder, uri, include, (*source.exclude, *left_out)) for folder in folders if folder.is_dir()]
    if not roots:
        raise UserError(f"corpus.sources[{index}] {uri!r}: this Python has no folder {' or '.join(map(str, folders))}.")
    return roots


def _locate(index: int, source: CorpusSource) -> SourceFile | _Root:
    include = source.include
    where = f"corpus.sources[{index}] {without_secrets(source.uri)!r}"
    named = local_path(source.uri)
    if named.is_dir():
        prefix = f"{source.uri.rstrip('/')}/"
        if source.repository == "no":
            return _Root(named.resolve(), prefix, include, source.exclude)
        include = ("**/*",) if include == DEFAULT_INCLUDE else include
        return _Root(named.resolve(), prefix, include, source.exclude, repository.IGNORED_FOLDERS)
    if named.exists():
        refuse_no_document(index, source, named.name)
        size = named.stat().st_size
        return SourceFile(index, printable(named.name), printable(source.uri), str(named.resolve()), num_bytes=size)
    if not has_magic(str(named)):
        raise UserError(f"{where} does not exist (looked at {named}): correct the path.")
    root, pattern = split_pattern(str(named))
    folder = Path(root or "/")
    if not folder.is_dir():
        raise UserError(f"{where}: the folder {folder} does not exist, correct the pattern.")
    prefix = source.uri[: -len(pattern)] if source.uri.endswith(pattern) else f"{folder}/"
    return _Root(folder.resolve(), prefix, (pattern,), source.exclude, is_pattern=True)


def _walk(index: int, root: _Root, leave_out: Path | None) -> Iterator[SourceFile | Refused | Unmatched]:
    include, exclude = included(root.include), any_of(root.exclude)
    excluded_folder = any_of([pattern for pattern in root.exclude if pattern.endswith("/**")])
    depth = max_depth(root.include)
    unreadable: list[OSError] = []

    def note(error: OSError) -> None:
        if not is_bad_input(error):
            raise unread(f"The folder {printable(str(error.filename))}", error) from error
        unreadable.append(error)

    for folder, folder_names, file_names in os.walk(root.folder, onerror=note):
        above = "" if Path(folder) == root.folder else Path(folder).relative_to(root.folder).as_posix() + "/"
        folder_names[:] = [n for n in folder_names if n not in root.pruned]
        for name in folder_names:
            path = Path(folder, name)
            if path.is_symlink() and not _inside(path, root.folder) and not exclude.fullmatch(f"{above}{name}/"):
                yield _outside(f"{root.prefix}{printable(above + name)}")
        if depth is not None and above.count("/") >= depth:
            folder_names.clear()
        # No symbolic link was followed on the way here, so the paths are resolved ones.
        folder_names[:] = [
            n
            for n in folder_names
            if not excluded_folder.fullmatch(f"{above}{n}/") and (leave_out is None or Path(folder, n) != leave_out)
        ]
        for name in file_names:
            relative = f"{above}{name}"
            if exclude.fullmatch(relative):
                continue
            if include.fullmatch(relative):
                yield _found(index, root, printable(relative), Path(folder, name))
            elif not root.is_pattern:
                yield Unmatched(printable(relative))
    for error in unreadable:
        relative = printable(os.path.relpath(error.filename, root.folder))
        yield Refused(f"{root.prefix}{relative}", 0, "unreadable", f"folder: {error.strerror}")


def _found(index: int, root: _Root, relative: str, path: Path) -> SourceFile | Refused:
    uri = f"{root.prefix}{relative}"
    if path.is_symlink() and not _inside(path, root.folder):
        return _outside(uri)
    try:
        num_bytes = tried(uri, lambda: path.stat().st_size)
    except OSError:
        num_bytes = 0  # the reader refuses it
    return SourceFile(index, relative, uri, str(path), num_bytes=num_bytes)


def _outside(uri: str) -> Refused:
    return Refused(uri, 0, "outside_root", "a link that leads out of the source's folder")


def _inside(path: Path, folder: Path) -> bool:
    """Whether a link stays in the folder. One that leads round in a circle does, and is refused when it is opened."""
    return Path(os.path.realpath(path)).is_relative_to(folder)
