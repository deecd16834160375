"""A source in which no file matches: the error names the endings of the files that are there."""

from __future__ import annotations

import posixpath
from collections import Counter

from data_schemas.addresses import is_remote, local_path, without_secrets
from data_schemas.errors import UserError
from data_schemas.params import DEFAULT_INCLUDE, CorpusSource
from tasks.ingest.globs import has_magic, included, split_pattern
from tasks.ingest.listing.local_files import is_of_python, list_local
from tasks.ingest.listing.remote_files import holds_match, list_remote
from tasks.ingest.locations import parse_location
from tasks.ingest.reading.file_formats import container_of, instead_of, text_format_of, without_compression
from tasks.ingest.reading.files import SourceFile
from tasks.ingest.reading.records import Unmatched

_MOST_ENDINGS = 8
_NO_ENDING = "without an ending"


def refuse_if_nothing_matches(index: int, source: CorpusSource) -> None:
    """UserError if no file of the source matches. Stops at the first that does, and gives up on a large remote folder."""
    if is_remote(source.uri):
        matches = holds_match(index, source) is not False
    else:
        matches = any(not isinstance(found, Unmatched) for found in list_local(index, source, None))
    if not matches:
        raise nothing_matches(index, source)


def nothing_matches(index: int, source: CorpusSource) -> UserError:
    """The error for a source in which no file matches."""
    names = _all_names(index, source)
    where = f"corpus.sources[{index}] {without_secrets(source.uri)!r}"
    if not names:
        return UserError(f"{where} holds no files: correct the path, or put documents there.")
    counts = Counter(_ending(name) for name in names)
    endings = sorted(counts, key=lambda ending: (-counts[ending], ending == _NO_ENDING, ending))
    shown = [f"{counts[ending]:,} {ending}" for ending in endings[:_MOST_ENDINGS]]
    rest = f" and {len(endings) - _MOST_ENDINGS} more endings" if len(endings) > _MOST_ENDINGS else ""
    left_out = sum(bool(included(source.include).fullmatch(name)) for name in names) if not _is_pattern(source) else 0
    if left_out:
        why = f"`exclude` leaves out all {left_out:,} files that match `include`"
    elif _is_pattern(source):
        why = "no file matches the pattern"
    else:
        patterns = "the default `include`" if source.include == DEFAULT_INCLUDE else f"`include` {', '.join(source.include)}"
        why = f"no file matches {patterns}"
    return UserError(f"{where}: {why}; there are {', '.join(shown)}{rest}: {_advice(names, endings, bool(left_out))}.")


def _advice(names: list[str], endings: list[str], is_excluded: bool) -> str:
    if is_excluded:
        return "correct `exclude`"
    examples = {_ending(name): name for name in reversed(names)}
    known = next((ending for ending in endings if _is_read(examples[ending])), None)
    if known:
        return f"set `include`, such as ['**/*{known}'], or correct the path"
    if ".zip" in endings:
        return f"name an archive as zip://::FOLDER/{posixpath.basename(examples['.zip'])}, or correct the path"
    if instead := next((instead for ending in endings if (instead := instead_of(examples[ending]))), None):
        return f"{instead}, or correct the path"
    if any(text_format_of(examples[ending]) == "code" for ending in endings):
        return "set `repository: files` to read code, or correct the path"
    return "set `include` to what should be read, or correct the path"


def _is_read(name: str) -> bool:
    """Whether files of this name are documents or hold records."""
    return (
        container_of(name) != "text"
        or text_format_of(name) not in ("plain", "code")
        or _ending(name).lower().startswith(".txt")
    )


def _ending(name: str) -> str:
    """The ending in upper and lower case as it is, because the patterns of a user are case-sensitive."""
    base = posixpath.basename(name)
    plain = without_compression(base)
    return f"{posixpath.splitext(plain)[1]}{base[len(plain) :]}" or _NO_ENDING


def _is_pattern(source: CorpusSource) -> bool:
    if is_remote(source.uri):
        return bool(parse_location(source.uri).pattern)
    return has_magic(source.uri) and not local_path(source.uri).exists()


def _all_names(index: int, source: CorpusSource) -> list[str]:
    """Every file below the source's folder, relative to it."""
    folder = source.uri
    if not is_of_python(source) and _is_pattern(source):
        folder = parse_location(folder).filesystem if is_remote(folder) else split_pattern(str(local_path(folder)))[0] or "/"
    everything = source.model_copy(update={"uri": folder, "include": ("**/*",), "exclude": (), "repository": "no"})
    listed = list_remote(index, everything, None) if is_remote(folder) else list_local(index, everything, None)
    return [found.relative for found in listed if isinstance(found, SourceFile)]
