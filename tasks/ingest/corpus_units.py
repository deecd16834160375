"""A corpus cut into units that are read independently, in any order, on any machine.

    list ──▶ stamp, and where to cut ──▶ group ──▶ ReadUnit ──▶ read_unit ──▶ Document | Refused | Skipped

The units are a function of the corpus alone, so any number of workers reads the same documents.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data_schemas.addresses import is_remote, without_secrets
from data_schemas.params import CorpusParams, CorpusSource
from tasks.ingest.decontamination.evaluated_prompts import read_prompts
from tasks.ingest.listing.local_files import check_local
from tasks.ingest.listing.nothing_found import refuse_if_nothing_matches
from tasks.ingest.listing.remote_files import check_remote
from tasks.ingest.listing.sources import DATASET_SCHEME, Listing, list_files
from tasks.ingest.quality.filters import finished
from tasks.ingest.reading.containers.packages import refuse_missing_packages
from tasks.ingest.reading.datasets_hub import DatasetSlice, FoundDataset, check_dataset, find_dataset, read_dataset
from tasks.ingest.reading.documents_of_file import read_file
from tasks.ingest.reading.file_parts import UNREADABLE, Examined, FilePart, examine
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.language_detection import check_languages
from tasks.ingest.reading.records import Document, Refused, Skipped
from tasks.ingest.reading.repository import RepositoryPart, read_code_file, read_repository, repositories

MIN_UNIT_BYTES = 4 << 20
MAX_UNITS = 4096
_THREADS = 8  # reading waits for disks and networks, and hashing lets other threads run
_FILES_A_TASK = 16  # a thread's hand-over costs as much as hashing a small file

Part = FilePart | RepositoryPart | DatasetSlice


@dataclass(frozen=True)
class ReadUnit:
    """Some documents of one source; it can travel to another process.

    `content` is a digest of what is read and of the source's parameters, the same in every corpus that has such a unit; empty
    where the content is not known.
    """

    index: int
    source_index: int
    parts: tuple[Part, ...]
    content: str = ""


@dataclass(frozen=True)
class Corpus:
    """Everything that is read. `fingerprint` changes with a file's name or content, not with its folder's path or its time.

    `refused_by`: for each of `refused` the index of its source.
    `num_unmatched`: files in the listed folders that match neither an include nor an exclude pattern; they are not read.
    """

    units: tuple[ReadUnit, ...]
    refused: tuple[Refused, ...]
    refused_by: tuple[int, ...]
    num_files: int
    num_bytes: int
    fingerprint: str
    num_unmatched: int


def plan_corpus(params: CorpusParams, leave_out: Path | str | None = None) -> Corpus:
    """List, stamp and cut the corpus into units of about 4 MiB, or that doubled until there are at most about 4096 of them.

    `leave_out` is a folder or URI that is never part of a corpus (the storage root, when it lies inside one).
    Raises UserError for a source that does not exist, that needs a package or credentials, or an unknown language.
    """
    check_languages(params.languages)
    listing = list_files(params.sources, leave_out)
    refuse_missing_packages(file for file in listing.files if params.sources[file.source_index].repository == "no")
    datasets = {i: find_dataset(i, s) for i, s in enumerate(params.sources) if s.uri.startswith(DATASET_SCHEME)}
    num_bytes = sum(file.num_bytes or 0 for file in listing.files) + sum(found.num_bytes for found in datasets.values())
    unit_bytes = MIN_UNIT_BYTES
    while unit_bytes * MAX_UNITS < num_bytes:  # in large steps, so that a corpus that grows a little keeps its units
        unit_bytes *= 2
    examined = _examine_all(params, listing, unit_bytes)
    stamps = {file: found.stamp for file, found in zip(listing.files, examined, strict=True)}
    units: list[ReadUnit] = []
    for index, source in enumerate(params.sources):
        found = datasets.get(index)
        parts_of_units = found.slices(unit_bytes) if found else _parts_of(index, source, listing, examined, unit_bytes)
        units += [
            ReadUnit(number, index, parts, _content(source, parts, stamps, found))
            for number, parts in enumerate(parts_of_units, len(units))
        ]
    fingerprint = _fingerprint(params, listing, examined, datasets)
    refused = (listing.refused, listing.refused_by)
    return Corpus(tuple(units), *refused, len(listing.files), num_bytes, fingerprint, listing.num_unmatched)


def refuse_missing(params: CorpusParams) -> None:
    """UserError for any problem of the corpus that can be found without listing all of it or downloading it."""
    check_languages(params.languages)
    if params.decontamination.enabled:
        read_prompts(params.decontamination.prompt_files)
    for index, source in enumerate(params.sources):
        if source.uri.startswith(DATASET_SCHEME):
            check_dataset(index, source)  # anything else only the hub can say
        else:
            (check_remote if is_remote(source.uri) else check_local)(index, source)
            refuse_if_nothing_matches(index, source)


def read_unit(unit: ReadUnit, params: CorpusParams) -> Iterator[Document | Refused | Skipped]:
    """The unit's documents in order. A document that cannot be read is a Refused, one that is not wanted a Skipped.

    At most one document and one block of a file are in memory.
    """
    source = params.sources[unit.source_index]
    max_bytes = int(params.max_document_megabytes * 1e6)
    with Files(params.max_expansion) as files:
        for part in unit.parts:
            for found in _read_part(part, source, files, max_bytes):
                yield finished(found, source, params, max_bytes) if isinstance(found, Document) else found
                del found  # before the next is made


def _read_part(part: Part, source: CorpusSource, files: Files, max_bytes: int) -> Iterator[Document | Refused | Skipped]:
    if isinstance(part, DatasetSlice):
        yield from read_dataset(part, source, max_bytes)
    elif isinstance(part, RepositoryPart):
        yield from read_repository(part, source, files, max_bytes)
    elif source.repository == "files":
        yield read_code_file(files, part.file, source)
    else:
        yield from read_file(part, source, files, max_bytes)


def _examine_all(params: CorpusParams, listing: Listing, unit_bytes: int) -> list[Examined]:
    """The stamp and the parts of each file, in the listing's order."""

    def some(start: int) -> list[Examined]:
        files = listing.files[start : start + _FILES_A_TASK]
        return [examine(file, unit_bytes, params.sources[file.source_index].repository == "no") for file in files]

    with ThreadPoolExecutor(_THREADS) as pool:
        return [found for of_task in pool.map(some, range(0, len(listing.files), _FILES_A_TASK)) for found in of_task]


def _parts_of(
    index: int, source: CorpusSource, listing: Listing, examined: Sequence[Examined], unit_bytes: int
) -> Iterator[tuple[Part, ...]]:
    """Parts of the files of one source, grouped into units."""
    own = [(file, found) for file, found in zip(listing.files, examined, strict=True) if file.source_index == index]
    if source.repository == "whole":
        return _grouped(repositories([file for file, _ in own], source, index in listing.repositories), unit_bytes)
    return _grouped([part for _, found in own for part in found.parts], unit_bytes)


def _grouped(parts: list[FilePart] | list[RepositoryPart], unit_bytes: int) -> Iterator[tuple[Part, ...]]:
    """Neighbouring parts together, about `unit_bytes` and at most twice that.

    Where a group ends follows from the parts' names and sizes, so an added file only changes the group it falls into.
    """
    begun: list[Part] = []
    num_bytes = 0
    for part in parts:
        if begun and num_bytes + part.num_bytes > 2 * unit_bytes:
            yield tuple(begun)
            begun, num_bytes = [], 0
        begun.append(part)
        num_bytes += part.num_bytes
        if _ends_group(part, unit_bytes):
            yield tuple(begun)
            begun, num_bytes = [], 0
    if begun:
        yield tuple(begun)


def _ends_group(part: FilePart | RepositoryPart, unit_bytes: int) -> bool:
    """True for a share of the parts that makes groups `unit_bytes` long on average."""
    name = f"{part.file.relative} {part.span}" if isinstance(part, FilePart) else part.folder
    position = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return position * unit_bytes < part.num_bytes


def _content(
    source: CorpusSource, parts: Sequence[Part], stamps: Mapping[SourceFile, str], dataset: FoundDataset | None
) -> str:
    """SHA-256 in hex of everything that decides what is read from the parts; empty for a file that could not be stamped."""
    described: list[object] = []
    for part in parts:
        if isinstance(part, DatasetSlice):
            described.append([dataclasses.asdict(part), dataset.stamp if dataset else "", dataset.num_items if dataset else 0])
            continue
        files = (part.file,) if isinstance(part, FilePart) else part.files
        if any(stamps[file] == UNREADABLE for file in files):
            return ""
        names = [[file.relative, file.uri, stamps[file]] for file in files]
        if isinstance(part, FilePart):
            described.append([[*names[0][:2], part.stamp or stamps[part.file]], part.span, part.first_record])
        else:
            described.append([part.name, part.uri, part.folder, names])
    # Neither which other files are read nor how often documents are used changes what is in these.
    recorded = source.model_dump(mode="json", exclude={"weight", "max_repeats", "include", "exclude"})
    recorded["uri"] = without_secrets(source.uri)
    return hashlib.sha256(json.dumps([recorded, described]).encode()).hexdigest()


def _fingerprint(
    params: CorpusParams, listing: Listing, examined: Sequence[Examined], datasets: dict[int, FoundDataset]
) -> str:
    """SHA-256 in hex over (source's label, relative path, stamp of the content) of all files, and what was refused."""
    digest = hashlib.sha256()

    def add(*parts: str) -> None:
        digest.update(json.dumps(parts).encode() + b"\n")

    labels = [source.label for source in params.sources]
    for file, found in zip(listing.files, examined, strict=True):
        add(labels[file.source_index], file.relative, found.stamp)
    for index in sorted(listing.repositories):  # decides what is one document
        add(labels[index], "", ".git")
    for index, dataset in datasets.items():
        add(labels[index], dataset.stamp)
    for refused in listing.refused:
        add(refused.source_uri.rsplit("/", 1)[-1], refused.reason)
    return digest.hexdigest()
