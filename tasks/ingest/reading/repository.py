"""A code repository as documents: which files are worth reading, and how they are joined into one text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_schemas.params import CorpusSource
from tasks.ingest.reading.file_formats import names, text_format_of
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.records import Document, Origin, Refused, Skipped, Unusable, checked, whole_file
from tasks.ingest.reading.text_decoding import decode_replacing

MAX_FILE_BYTES = 1_000_000  # longer files in repositories are nearly always generated or data
_SNIFFED_BYTES = 8192  # as Git does: a NUL in them makes a file binary

IGNORED_FOLDERS = names("""
    .git .hg .svn .bzr CVS node_modules bower_components jspm_packages __pycache__ .venv venv .tox .nox .eggs .mypy_cache
    .pytest_cache .ruff_cache .hypothesis .ipynb_checkpoints .idea .vscode .vs .gradle .terraform .next .nuxt .cache
""")
_LOCK_FILES = names("""
    package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock Cargo.lock poetry.lock uv.lock
    pdm.lock pixi.lock Pipfile.lock composer.lock Gemfile.lock go.sum flake.lock mix.lock pubspec.lock Podfile.lock
    packages.lock.json gradle.lockfile .terraform.lock.hcl
""")
_IGNORED_SUFFIXES = (".min.js", ".min.css", ".map", ".pyc", ".pdf", ".svg", ".ipynb")


@dataclass(frozen=True)
class RepositoryPart:
    """A whole repository: its name, its URI, the folder its files' relative paths start with, and the files in order."""

    name: str
    uri: str
    folder: str
    files: tuple[SourceFile, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes or 0 for file in self.files)


def is_worth_reading(relative: str) -> bool:
    """Whether people write such a file by hand, judged by its name alone."""
    path = PurePosixPath(relative)
    if path.name in _LOCK_FILES or path.name.lower().endswith(_IGNORED_SUFFIXES):
        return False
    return not any(part in IGNORED_FOLDERS for part in path.parts[:-1])


def repositories(files: Sequence[SourceFile], source: CorpusSource, is_one: bool) -> list[RepositoryPart]:
    """The files as repositories: one if `is_one`, else one for each top-level folder; files outside folders are left out."""
    by_folder: dict[str, list[SourceFile]] = {}
    for file in files:
        folder = "" if is_one else file.relative.partition("/")[0] + "/"
        if file.relative.startswith(folder):
            by_folder.setdefault(folder, []).append(file)
    return [
        RepositoryPart(
            name=folder.rstrip("/") or source.label,
            uri=(members[0].uri.removesuffix(members[0].relative) + folder).rstrip("/"),
            folder=folder,
            files=tuple(sorted(members, key=_reading_place)),
        )
        for folder, members in sorted(by_folder.items())
    ]


def _reading_place(file: SourceFile) -> tuple[int, int, str]:
    """READMEs first, those nearest to the top before others; then by path."""
    path = PurePosixPath(file.relative)
    is_readme = path.name.lower().split(".")[0] == "readme"
    return (0, len(path.parts), file.relative) if is_readme else (1, 0, file.relative)


def read_code_file(files: Files, file: SourceFile, source: CorpusSource) -> Document | Refused | Skipped:
    """A text file of any kind as one document, as it is stored (an HTML page is code here)."""
    try:
        found = _text_of(files, file, source)
        if isinstance(found, Skipped):
            return found
        return whole_file(
            found.text,
            found.num_bytes,
            source.format or text_format_of(file.relative),
            Origin(file.uri, file.relative, source),
            _changes(found.num_replaced),
        )
    except Unusable as problem:
        return problem.refused(file.uri, 0)


def read_repository(
    part: RepositoryPart, source: CorpusSource, files: Files, max_bytes: int
) -> Iterator[Document | Refused | Skipped]:
    """One document: each file after a line `==> path <==`, as in the output of `head`. Unreadable files are left out."""
    parts: list[str] = []
    num_bytes = num_replaced = 0
    for file in part.files:
        try:
            found = _text_of(files, file, source)
            if isinstance(found, Skipped):
                yield found
                continue
            text = checked(found.text)
            num_replaced += found.num_replaced
        except Unusable as problem:
            if problem.reason != "empty":  # an empty __init__.py says nothing about the repository
                yield problem.refused(file.uri, 0)
            continue
        inside = file.relative.removeprefix(part.folder)
        parts.append(f"{'' if not parts else chr(10)}==> {inside} <==\n{text if text.endswith(chr(10)) else text + chr(10)}")
        num_bytes += len(parts[-1].encode())
        if num_bytes > max_bytes:
            yield Refused(part.uri, 0, "too_large", f"a repository of more than {max_bytes:,} bytes of text")
            return
    if not parts:
        yield Refused(part.uri, 0, "empty", "no text file in the repository")
        return
    yield Document(
        text="".join(parts),
        source=source.label,
        source_uri=part.uri,
        record=0,
        byte_start=None,
        byte_end=None,
        licence=source.licence,
        work=part.name,
        format="code",
        changes=_changes(num_replaced),
    )


@dataclass(frozen=True)
class _Text:
    text: str
    num_bytes: int
    num_replaced: int


def _changes(num_replaced: int) -> tuple[tuple[str, int], ...]:
    return (("undecodable", num_replaced),) if num_replaced else ()


def _text_of(files: Files, file: SourceFile, source: CorpusSource) -> _Text | Skipped:
    """The text, or Skipped for a binary or large file. Raises Unusable."""
    if file.num_bytes is not None and file.num_bytes > MAX_FILE_BYTES:
        return Skipped(file.uri, 0, "large_file")
    data = bytearray()
    for block in files.stored_blocks(file):
        data += block
        if b"\0" in data[:_SNIFFED_BYTES]:
            return Skipped(file.uri, 0, "binary")
        if len(data) > MAX_FILE_BYTES:
            return Skipped(file.uri, 0, "large_file")
    text, num_replaced = decode_replacing(data, source.replace_undecodable)
    return _Text(text, len(data), num_replaced)
