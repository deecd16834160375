"""Which files a corpus consists of, in an order that does not depend on where the corpus is stored."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_schemas.addresses import is_remote, local_path
from data_schemas.params import DEFAULT_INCLUDE, CorpusSource
from tasks.ingest.globs import any_of
from tasks.ingest.listing.gitignore import GITIGNORE, not_ignored
from tasks.ingest.listing.local_files import list_local
from tasks.ingest.listing.nothing_found import nothing_matches
from tasks.ingest.listing.remote_files import list_remote
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.records import Refused, Unmatched, Unusable
from tasks.ingest.reading.repository import is_worth_reading

DATASET_SCHEME = "hf:"


@dataclass(frozen=True)
class Listing:
    """All files of a corpus.

    files          sorted by (source, relative path)
    refused        inputs that are refused by their name alone
    refused_by     for each of them the index of its source
    repositories   indices of the sources (`repository: whole`) whose folder is itself one Git repository
    num_unmatched  files in listed folders that match neither an include nor an exclude pattern
    """

    files: tuple[SourceFile, ...]
    refused: tuple[Refused, ...]
    refused_by: tuple[int, ...]
    repositories: frozenset[int]
    num_unmatched: int


def list_files(sources: Sequence[CorpusSource], leave_out: Path | str | None = None) -> Listing:
    """Every matching file of every source except data sets (`hf:`), which the `datasets` library lists.

    `leave_out` is a folder or a URI that is never part of a corpus (the storage root, when it lies inside one).
    Raises UserError for a source that does not exist, cannot be read from here, or in which no file matches.
    """
    files: list[SourceFile] = []
    refused: list[Refused] = []
    refused_by: list[int] = []
    repositories: set[int] = set()
    num_unmatched = 0
    for index, source in enumerate(sources):
        if source.uri.startswith(DATASET_SCHEME):
            continue
        found = list(_list_source(index, source, leave_out))
        if all(isinstance(one, Unmatched) for one in found):
            raise nothing_matches(index, source)
        of_source = sorted((f for f in found if isinstance(f, SourceFile)), key=lambda file: (file.relative, file.location))
        files += of_source if source.repository == "no" else _of_repository(of_source, source)
        if source.repository == "whole" and _holds_git(source, of_source):
            repositories.add(index)
        refused += sorted((f for f in found if isinstance(f, Refused)), key=lambda r: r.source_uri)
        refused_by += [index] * (len(refused) - len(refused_by))
        num_unmatched += sum(isinstance(f, Unmatched) for f in found)
    return Listing(tuple(files), tuple(refused), tuple(refused_by), frozenset(repositories), num_unmatched)


def _list_source(index: int, source: CorpusSource, leave_out: Path | str | None) -> Iterator[SourceFile | Refused | Unmatched]:
    if source.repository != "no" and source.include != DEFAULT_INCLUDE:
        source = source.model_copy(update={"include": (*source.include, f"**/{GITIGNORE}")})
    if is_remote(source.uri):
        return list_remote(index, source, leave_out if isinstance(leave_out, str) else None)
    return list_local(index, source, leave_out if isinstance(leave_out, Path) else None)


def _holds_git(source: CorpusSource, files: list[SourceFile]) -> bool:
    if not is_remote(source.uri):
        return (local_path(source.uri) / ".git").exists()
    return any(file.relative.startswith(".git/") for file in files)


def _of_repository(files: list[SourceFile], source: CorpusSource) -> list[SourceFile]:
    """The files that people write, without those that .gitignore files or `is_worth_reading` leave out."""
    wanted = any_of(("**/*",) if source.include == DEFAULT_INCLUDE else source.include)
    written = {file.relative: file for file in files if is_worth_reading(file.relative)}
    gitignores: dict[str, str] = defaultdict(str)
    with Files(max_expansion=2) as opener:
        for relative, file in written.items():
            if PurePosixPath(relative).name == GITIGNORE:
                folder = relative.removesuffix(GITIGNORE).rstrip("/")
                gitignores[folder] = _content(opener, file)
    names = [name for name in written if PurePosixPath(name).name != GITIGNORE and wanted.fullmatch(name)]
    return [written[name] for name in not_ignored(names, gitignores)]


def _content(opener: Files, file: SourceFile) -> str:
    try:
        return b"".join(opener.stored_blocks(file)).decode("utf-8-sig", "replace")  # Git skips the byte order mark too
    except Unusable:
        return ""
