"""Which files a corpus consists of, in an order that does not depend on where the corpus lies."""

import os
import re
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from data_schemas.errors import UserError
from data_schemas.params import CorpusSource

STDLIB_URI = "stdlib:"
_DEFAULT_INCLUDE = CorpusSource.model_fields["include"].default
_STDLIB_INCLUDE = ("**/*.py",)
# Installed packages live inside the standard library's folder, but are not part of it.
_STDLIB_EXCLUDE = ("**/site-packages/**", "**/dist-packages/**", "**/__pycache__/**")
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Refused:
    """An input that is not read, with a reason code; becomes one QUARANTINE row."""

    source_uri: str
    record: int
    reason: str
    detail: str


@dataclass(frozen=True)
class SourceFile:
    """One file to read. `relative` is its POSIX path below the source's root; `uri` starts as the user wrote it."""

    source_index: int
    relative: str
    path: Path
    uri: str


@dataclass(frozen=True)
class Listing:
    """The files of all sources, sorted by (source, relative path), and the links that lead out of their source."""

    files: tuple[SourceFile, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class _Root:
    """A folder to walk: where it is, how the user named it, and which of its files count."""

    folder: Path
    prefix: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]


def list_files(sources: Sequence[CorpusSource], leave_out: Path | None = None) -> Listing:
    """Every matching file of every source.

    Symbolic links to folders are not walked, and a link that resolves outside its source's root is refused with reason
    `outside_root`. `leave_out` is a folder that is never part of a corpus (the storage root, when it lies inside one).
    Raises UserError for a source that does not exist or is not local.
    """
    files: list[SourceFile] = []
    refused: list[Refused] = []
    for index, source in enumerate(sources):
        named = _locate(index, source)
        if isinstance(named, SourceFile):
            files.append(named)
            continue
        unreadable: list[OSError] = []
        found = sorted(_walk(named, leave_out.resolve() if leave_out else None, unreadable.append))
        refused += sorted((_refused_folder(named, error) for error in unreadable), key=lambda r: r.source_uri)
        for relative, path, is_inside in found:
            uri = f"{named.prefix}{relative}"
            if is_inside:
                files.append(SourceFile(index, relative, path, uri))
            else:
                refused.append(Refused(uri, 0, "outside_root", "a link that leads out of the source's folder"))
    return Listing(tuple(files), tuple(refused))


def _locate(index: int, source: CorpusSource) -> SourceFile | _Root:
    if source.uri.startswith(STDLIB_URI):
        include = _STDLIB_INCLUDE if source.include == _DEFAULT_INCLUDE else source.include
        folder = Path(sysconfig.get_paths()["stdlib"])
        return _Root(folder.resolve(), STDLIB_URI, include, (*source.exclude, *_STDLIB_EXCLUDE))
    named = _local_path(index, source.uri)
    if named.is_dir():
        return _Root(named.resolve(), f"{source.uri.rstrip('/')}/", source.include, source.exclude)
    if named.exists():
        return SourceFile(index, _printable(named.name), named.resolve(), _printable(source.uri))
    if not _MAGIC.search(str(named)):
        raise UserError(f"corpus.sources[{index}] {source.uri!r} does not exist (looked at {named}): correct the path.")
    parts = named.parts
    first_magic = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    folder, pattern = Path(*parts[:first_magic]), "/".join(parts[first_magic:])
    if not folder.is_dir():
        raise UserError(f"corpus.sources[{index}] {source.uri!r}: the folder {folder} does not exist, correct the pattern.")
    prefix = source.uri[: -len(pattern)] if source.uri.endswith(pattern) else f"{folder}/"
    return _Root(folder.resolve(), prefix, (pattern,), source.exclude)


def _local_path(index: int, uri: str) -> Path:
    split = urlsplit(uri) if "://" in uri else None
    if split is None:
        return Path(uri).expanduser().absolute()
    if split.scheme != "file" or split.netloc not in ("", "localhost"):
        raise UserError(
            f"corpus.sources[{index}] {uri!r} is not a local file or folder: copy the corpus here and give its path."
        )
    return Path(unquote(split.path))


def _refused_folder(root: _Root, error: OSError) -> Refused:
    relative = os.path.relpath(error.filename, root.folder)
    return Refused(f"{root.prefix}{_printable(relative)}", 0, "unreadable", f"folder: {error.strerror}")


def _walk(root: _Root, leave_out: Path | None, on_unreadable: Callable[[OSError], None]) -> Iterator[tuple[str, Path, bool]]:
    """(relative path, path, lies inside the root) of each match."""
    include, exclude = _any_of(root.include), _any_of(root.exclude)
    max_depth = None if any("**" in pattern for pattern in root.include) else max(p.count("/") for p in root.include)
    for folder, folder_names, file_names in os.walk(root.folder, onerror=on_unreadable):
        above = "" if Path(folder) == root.folder else Path(folder).relative_to(root.folder).as_posix() + "/"
        for name in folder_names:
            path = Path(folder, name)
            if path.is_symlink() and not _inside(path, root.folder) and not exclude.fullmatch(f"{above}{name}/"):
                yield _printable(f"{above}{name}"), path, False
        if max_depth is not None and above.count("/") >= max_depth:
            folder_names.clear()
        folder_names[:] = sorted(n for n in folder_names if leave_out is None or Path(folder, n).resolve() != leave_out)
        for name in file_names:
            relative = f"{above}{name}"
            if include.fullmatch(relative) and not exclude.fullmatch(relative):
                path = Path(folder, name)
                yield _printable(relative), path, not path.is_symlink() or _inside(path, root.folder)


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)


def _printable(name: str) -> str:
    """A file name as valid Unicode: bytes that are not UTF-8 come from the file system as lone surrogates."""
    return os.fsencode(name).decode("utf-8", "replace")


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(_glob_regex(p) for p in patterns) or r"(?!)", re.DOTALL)


def _glob_regex(pattern: str) -> str:
    """`**` stands for any number of folders, `*` and `?` stay inside one name, `[ab]` and `[!ab]` are character sets."""
    parts = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern.removeprefix("./"), re.DOTALL):
        if token == "**/":
            parts.append(r"(?:.*/)?")
        elif token == "**":
            parts.append(".*")
        elif token == "*":
            parts.append("[^/]*")
        elif token == "?":
            parts.append("[^/]")
        elif len(token) > 1:
            negated = token.startswith("[!")
            members = token[2 if negated else 1 : -1].replace("\\", "\\\\").replace("[", r"\[").replace("^", r"\^")
            parts.append(f"[{'^' if negated else ''}{members}]")
        else:
            parts.append(re.escape(token))
    return "".join(parts)
