"""Hugging Face data sets, by hub id or from a folder, streamed or memory-mapped. Code of a data set is never run."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from data_schemas.addresses import without_secrets
from data_schemas.errors import UserError
from data_schemas.manifest import hash_file
from data_schemas.params import CorpusSource
from tasks.ingest.reading.conversations import conversation_columns
from tasks.ingest.reading.faults import Tries, is_transport_failure, tried
from tasks.ingest.reading.record_fields import from_fields
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable

_BATCH_BYTES = 4 << 20
_MAX_BATCH_ROWS = 1024
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class DatasetSlice:
    """Rows [start, stop) of a memory-mapped data set, or shards [start, stop) of a streamed one."""

    uri: str
    revision: str | None
    start: int
    stop: int


@dataclass(frozen=True)
class FoundDataset:
    """A data set. `num_items`: rows, or shards if it is streamed. `stamp` changes with its content."""

    uri: str
    revision: str | None
    num_items: int
    num_bytes: int
    stamp: str

    def slices(self, unit_bytes: int) -> Iterator[tuple[DatasetSlice]]:
        """Equal parts of about `unit_bytes`; at most one for each row or shard."""
        num_slices = max(1, min(self.num_items, -(-self.num_bytes // unit_bytes)))
        cuts = [self.num_items * i // num_slices for i in range(num_slices + 1)]
        for start, stop in pairwise(cuts):
            yield (DatasetSlice(self.uri, self.revision, start, stop),)


def check_dataset(index: int, source: CorpusSource) -> None:
    """UserError for a wrong setting that shows without asking the hub."""
    if source.work_by == "top_level":
        raise UserError(
            f"corpus.sources[{index}] {without_secrets(source.uri)!r} is a data set, which has no folders for work_by top_level: "
            "leave work_by out, and give records that are parts of one work a `work` field."
        )


def find_dataset(index: int, source: CorpusSource) -> FoundDataset:
    """Look a data set up. Raises UserError for one that cannot be found, loaded or read without its own code."""
    check_dataset(index, source)
    name = source.uri.removeprefix("hf:")
    with _explaining(index, source):
        folder = _folder(name)
        revision = None if folder else _commit(source, name)
        data = _load(source, revision)
        stamp = _content_stamp(folder) if folder else revision or str(data._fingerprint)
        num_bytes = _num_bytes(data, source, folder, revision)
    _refuse_missing_text(index, source, data)
    config = source.dataset_config or "default"
    return FoundDataset(
        uri=f"hf:{name}{f'@{revision}' if revision else ''}:{config}/{source.dataset_split}",
        revision=revision,
        num_items=data.num_shards if _is_streamed(data) else len(data),
        num_bytes=num_bytes,
        stamp=f"{stamp} {config} {source.dataset_split}",
    )


def read_dataset(part: DatasetSlice, source: CorpusSource, max_bytes: int) -> Iterator[Document | Refused]:
    """Documents of a slice. Records count from 1 in a mapped data set, and in each shard of a streamed one."""
    try:
        data = _loaded(part, source)
        if not _is_streamed(data):
            yield from _read_rows(data, part, source, max_bytes)
            return
    except Unusable as problem:
        yield problem.refused(part.uri, 0)
        return
    if data.features:  # what is not read need not be decoded
        wanted = (source.text_field, "id", "licence", "license", "work", *conversation_columns(list(data.features), source))
        data = data.select_columns([column for column in data.features if column in wanted])
    for shard in range(part.start, part.stop):
        yield from _read_shard(data, shard, part.uri, source)


def _loaded(part: DatasetSlice, source: CorpusSource) -> Any:
    def load() -> Any:
        with _refusing():
            return _load(source, part.revision)

    return tried(without_secrets(part.uri), load)


def _read_rows(data: Any, part: DatasetSlice, source: CorpusSource, max_bytes: int) -> Iterator[Document | Refused]:
    from tasks.ingest.reading.tables import table_rows, text_and_labels

    origin = Origin(part.uri, source.dataset_split, source)
    record = part.start + 1
    mean_bytes = max(1, data.data.nbytes // max(1, data.data.num_rows))
    tries = Tries(without_secrets(part.uri))
    try:
        with _refusing():
            columns = text_and_labels(data.features.arrow_schema, source)
            data = data.select_columns(columns).with_format("arrow")
        while record <= part.stop:
            try:
                with _refusing():
                    rows = data.select(range(record - 1, part.stop))
                    for table in rows.iter(max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES // mean_bytes))):
                        for batch in table.to_batches():
                            yield from table_rows(batch, record, origin, max_bytes)
                            record += batch.num_rows
                            tries.succeeded()
                    return
            except Exception as error:
                tries.failed(error)
    except Unusable as problem:
        yield problem.refused(part.uri, record)


def _read_shard(data: Any, shard: int, uri: str, source: CorpusSource) -> Iterator[Document | Refused]:
    origin = Origin(f"{uri}/{shard:05d}-of-{data.num_shards:05d}", f"{source.dataset_split}/{shard:05d}", source)
    record = 0
    tries = Tries(without_secrets(origin.uri))
    while True:
        try:
            with _refusing():
                for fields in islice(data.shard(data.num_shards, shard), record, None):  # from where it failed
                    record += 1
                    tries.succeeded()
                    try:
                        yield from_fields(fields, record, None, origin)
                    except Unusable as problem:
                        yield problem.refused(origin.uri, record)
            return
        except Unusable as problem:
            yield problem.refused(origin.uri, record + 1)
            return
        except Exception as error:
            tries.failed(error)


def _load(source: CorpusSource, revision: str | None) -> Any:
    """The split, as a `Dataset` or an `IterableDataset`."""
    import datasets

    name = source.uri.removeprefix("hf:")
    folder = _folder(name)
    if folder and any((folder / marker).is_file() for marker in ("state.json", "dataset_dict.json")):
        data = datasets.load_from_disk(str(folder))
        if isinstance(data, datasets.DatasetDict):
            if source.dataset_split not in data:
                raise ValueError(f"Unknown split {source.dataset_split!r}. Should be one of {sorted(data)}.")
            data = data[source.dataset_split]
        return data
    return datasets.load_dataset(
        str(folder or name),
        name=source.dataset_config,
        split=source.dataset_split,
        revision=revision,
        streaming=source.streaming,
    )


def _is_streamed(data: Any) -> bool:
    import datasets

    return isinstance(data, datasets.IterableDataset)


def _folder(name: str) -> Path | None:
    path = Path(name).expanduser()
    return path.resolve() if path.is_dir() else None


def _commit(source: CorpusSource, name: str) -> str | None:
    """The revision's present commit, so that every worker reads the same; None if it cannot be known offline."""
    from huggingface_hub import HfApi, constants

    if source.dataset_revision and _COMMIT.fullmatch(source.dataset_revision):
        return source.dataset_revision
    if constants.HF_HUB_OFFLINE and not source.streaming:
        return source.dataset_revision
    commit: str | None = HfApi().dataset_info(name, revision=source.dataset_revision).sha
    return commit


def _content_stamp(folder: Path) -> str:
    """SHA-256 over the names and hashes of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()!a}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def _num_bytes(data: Any, source: CorpusSource, folder: Path | None, revision: str | None) -> int:
    """The split's size in bytes, or that of all files of the data set if the split's is not known."""
    if not _is_streamed(data):
        return int(data.data.nbytes)
    if folder:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    split = (data.info.splits or {}).get(source.dataset_split)
    if split and split.num_bytes:
        return int(split.num_bytes)
    from huggingface_hub import HfApi

    siblings = HfApi().dataset_info(source.uri.removeprefix("hf:"), revision=revision, files_metadata=True).siblings
    return sum(file.size or 0 for file in siblings or ())


def _refuse_missing_text(index: int, source: CorpusSource, data: Any) -> None:
    columns = list(data.features or [])
    where = f"corpus.sources[{index}] {without_secrets(source.uri)!r}"
    if source.instructions != "no":
        if columns and not conversation_columns(columns, source):
            raise UserError(f"{where} has no column with a conversation (it has {', '.join(columns)}): set messages_field.")
        return
    if columns and source.text_field not in columns:
        raise UserError(
            f"{where} has no column {source.text_field!r} (it has {', '.join(columns)}): set text_field, or instructions for conversations."
        )


@contextlib.contextmanager
def _explaining(index: int, source: CorpusSource) -> Iterator[None]:
    """Turn errors of the library into a UserError of one sentence."""
    where = f"corpus.sources[{index}] {without_secrets(source.uri)!r}"
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        kind = type(error).__name__
        if kind in ("GatedRepoError", "RepositoryNotFoundError", "DatasetNotFoundError", "RevisionNotFoundError"):
            raise UserError(
                f"{where} (revision {source.dataset_revision or 'main'}) is not on the hub, or this account has no access: correct "
                "the id, or set HF_TOKEN to a token that can read it."
            ) from None
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{where} has no data files in a format of the datasets library: correct the path or id.") from None
        if isinstance(error, OSError) or "Offline" in kind or "Connect" in kind or "HTTP" in kind.upper():
            raise UserError(
                f"{where} cannot be fetched from the Hugging Face hub ({kind}): check the network and HF_HUB_OFFLINE, or give "
                "a local folder."
            ) from None
        if isinstance(error, AttributeError | TypeError | NameError):
            raise  # a bug in Ropeway, not the user's mistake
        reason = without_secrets((str(error).splitlines() or [kind])[0])[:300]
        raise UserError(f"{where} cannot be loaded: {reason}; correct its id, dataset_config or dataset_split.") from None


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn a library's errors into Unusable, without their text, which may hold a signed address.

    Transport failures are raised unchanged, to be retried.
    """
    import pyarrow as pa

    try:
        yield
    except (Unusable, UserError, MemoryError):
        raise
    except UnicodeDecodeError as error:
        raise Unusable("undecodable", f"byte {error.start}: {error.reason}") from error
    except Exception as error:
        if is_transport_failure(error):
            raise
        if not isinstance(error, pa.ArrowException):
            raise Unusable("unreadable", f"reading it failed with {type(error).__name__}") from error
        raise Unusable("corrupt", (str(error).splitlines() or [type(error).__name__])[0]) from error
