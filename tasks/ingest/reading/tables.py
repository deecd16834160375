"""Documents from columns: Parquet row groups and Arrow record batches, a few megabytes of rows at a time."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_schemas.params import CorpusSource
from tasks.ingest.reading.arrow_messages import FILE_MAGIC, BatchHeader, batch_headers
from tasks.ingest.reading.compression import refuse_bomb
from tasks.ingest.reading.conversations import conversation_columns, hint
from tasks.ingest.reading.faults import tried
from tasks.ingest.reading.file_formats import compression_of
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.record_fields import from_fields
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_BYTES = 4 << 20
_REPEATED_BYTES = 32 << 20
_MAX_BATCH_ROWS = 1024
_LABELS = ("id", "licence", "license", "work")
_OF_SCHEMA = ("missing_text", "not_text", "no_messages")  # a table has a wrong column, or none
_REPEATS_STARTS = "DELTA_BYTE_ARRAY"


@dataclass(frozen=True)
class Piece:
    """Rows of a table that are stored together: a Parquet row group, or an Arrow record batch."""

    num_rows: int
    num_bytes: int


def read_parquet(
    files: Files, file: SourceFile, origin: Origin, max_bytes: int, pieces: tuple[int, int] | None, first_record: int
) -> Iterator[Document | Refused]:
    """Documents in the row groups [start, end) of a file (None: all); `first_record` is the number of the first row."""
    record = first_record
    try:
        with _opened_parquet(files, file) as table, _refusing_damage():
            columns = text_and_labels(table.schema_arrow, origin.source)
            for group in range(*(pieces or (0, table.num_row_groups))):
                plan = _plan_of_group(table, group, columns, files.max_expansion)
                num_decoded = 0
                for batch in table.iter_batches(plan.batch_rows, row_groups=[group], columns=columns, use_threads=False):
                    num_decoded += batch.nbytes
                    if plan.is_delta_coded:
                        refuse_bomb(num_decoded, plan.stored_bytes, files.max_expansion)
                    yield from table_rows(batch, record, origin, max_bytes)
                    record += batch.num_rows
    except Unusable as problem:
        yield problem.refused(origin.uri, 0 if problem.reason in _OF_SCHEMA else record)


def read_arrow(
    files: Files, file: SourceFile, origin: Origin, max_bytes: int, pieces: tuple[int, int] | None, first_record: int
) -> Iterator[Document | Refused]:
    """Documents in the record batches [start, end) of an IPC file or stream (None: all)."""
    record = first_record
    try:
        with files.local_path(file) as path, _refusing_damage(), _opened_arrow(path, file.uri) as arrow:
            columns = text_and_labels(arrow.schema, origin.source)
            for batch in _arrow_batches(arrow, columns, pieces, files.max_expansion):
                yield from table_rows(_validated(batch.select(columns)), record, origin, max_bytes)
                record += batch.num_rows
    except Unusable as problem:
        yield problem.refused(origin.uri, 0 if problem.reason in _OF_SCHEMA else record)


def pieces_of(files: Files, file: SourceFile, container: str) -> list[Piece] | None:
    """The parts a table can be cut into; None if it can only be read whole, or not at all."""
    if compression_of(file.relative) or not (file.is_local or (container == "parquet" and file.is_seekable)):
        return None
    try:
        with _refusing_damage():
            if container == "parquet":
                with _opened_parquet(files, file) as table:
                    groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
                    return [Piece(group.num_rows, group.total_byte_size) for group in groups]
            with files.local_path(file) as path, _opened_arrow(path, file.uri) as arrow:
                return [Piece(found.num_rows, found.stored_bytes) for found in arrow.headers() if not found.is_dictionary]
    except Unusable:
        return None  # the reader refuses it


@contextlib.contextmanager
def _opened_parquet(files: Files, file: SourceFile) -> "Iterator[pq.ParquetFile]":
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        if file.is_seekable and not compression_of(file.relative):
            place: Any = stack.enter_context(files.opened(file))
        else:
            place = stack.enter_context(files.local_path(file))
        with _refusing_damage():
            # A buffer makes it read a column's pages one after another instead of the whole column.
            table = stack.enter_context(pq.ParquetFile(place, buffer_size=1 << 20, pre_buffer=False))
        yield table


@dataclass(frozen=True)
class _Arrow:
    """An IPC file (or a stream: not `is_file`), mapped into memory, so that skipped batches are not read."""

    mapped: "pa.MemoryMappedFile"
    is_file: bool
    schema: "pa.Schema"

    def headers(self) -> Iterator[BatchHeader]:
        import pyarrow as pa

        whole = pa.BufferReader(self.mapped.read_at(self.mapped.size(), 0))  # no copy, with a place of its own
        return batch_headers(whole, self.is_file)


@contextlib.contextmanager
def _opened_arrow(path: str, name: str) -> Iterator[_Arrow]:
    import pyarrow as pa

    with tried(name, lambda: pa.memory_map(path)) as mapped:
        is_file = mapped.read(len(FILE_MAGIC)) == FILE_MAGIC
        mapped.seek(0)
        schema = (pa.ipc.open_file if is_file else pa.ipc.open_stream)(mapped).schema
        yield _Arrow(mapped, is_file, schema)


def _arrow_batches(
    arrow: _Arrow, columns: list[str], pieces: tuple[int, int] | None, max_expansion: float
) -> "Iterator[pa.RecordBatch]":
    """The record batches [start, end) with some columns. Only these are decoded, and no bomb is. Raises Unusable."""
    import pyarrow as pa

    wanted = [arrow.schema.get_field_index(column) for column in columns]
    arrow.mapped.seek(0)
    open_reader = pa.ipc.open_file if arrow.is_file else pa.ipc.open_stream
    reader = open_reader(arrow.mapped, options=pa.ipc.IpcReadOptions(included_fields=wanted))
    index = 0
    for header in arrow.headers():
        if header.is_dictionary:
            _refuse_grown(header, arrow.schema, columns, max_expansion)
            continue
        if pieces and index >= pieces[1]:
            return
        is_wanted = pieces is None or index >= pieces[0]
        if is_wanted or not arrow.is_file:
            _refuse_grown(header, arrow.schema, columns, max_expansion)
            batch = reader.get_batch(index) if arrow.is_file else reader.read_next_batch()
            if is_wanted:
                yield batch
        index += 1


def _refuse_grown(header: BatchHeader, schema: "pa.Schema", columns: list[str], max_expansion: float) -> None:
    stored, grown = header.size_of(schema, columns)
    refuse_bomb(grown, stored, max_expansion)


@contextlib.contextmanager
def _refusing_damage() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        raise Unusable("corrupt", str(error).splitlines()[0]) from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
            raise  # the file system's, not the format's
        raise Unusable("corrupt", (str(error).splitlines() or [type(error).__name__])[0]) from error


def text_and_labels(schema: "pa.Schema", source: CorpusSource) -> list[str]:
    """The names of the text's column, or of those of a conversation, and of the label columns that exist. Raises Unusable."""
    import pyarrow as pa

    if source.instructions != "no":
        columns = conversation_columns(schema.names, source)
        if not columns:
            raise Unusable("no_messages", f"no column with a conversation, but {', '.join(schema.names)[:200]}")
        return [*columns, *(name for name in _LABELS if schema.names.count(name) == 1)]
    if schema.names.count(source.text_field) != 1:
        raise Unusable("missing_text", f"no column {source.text_field!r}{hint(dict.fromkeys(schema.names))}")
    kind = schema.field(source.text_field).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(check(kind) for check in is_text):
        raise Unusable("not_text", f"the column {source.text_field!r} holds {kind}")
    labels = _labels(source)
    return [source.text_field, *(name for name in labels if schema.names.count(name) == 1 and name != source.text_field)]


def _labels(source: CorpusSource) -> tuple[str, ...]:
    return (*_LABELS, source.format_field) if source.format_field else _LABELS


@dataclass(frozen=True)
class _GroupPlan:
    """How a row group is read: rows decoded at once, bytes of its columns in the file, whether values are delta-coded."""

    batch_rows: int
    stored_bytes: int
    is_delta_coded: bool


def _plan_of_group(table: "pq.ParquetFile", group: int, columns: list[str], max_expansion: float) -> _GroupPlan:
    """Raises Unusable for a row group that is a bomb."""
    found = table.metadata.row_group(group)
    chunks = [chunk for i in range(found.num_columns) if _is_of((chunk := found.column(i)).path_in_schema, columns)]
    for chunk in chunks:
        refuse_bomb(chunk.total_uncompressed_size, chunk.total_compressed_size, max_expansion)
    return _GroupPlan(
        batch_rows=max(1, min(_batch_rows(chunk, found.num_rows) for chunk in chunks)),
        stored_bytes=sum(chunk.total_compressed_size for chunk in chunks),
        is_delta_coded=any(_REPEATS_STARTS in chunk.encodings for chunk in chunks),
    )


def _is_of(path: str, columns: list[str]) -> bool:
    """Whether a column chunk is of one of the columns, or nested in it, as those of a list of messages are."""
    return path in columns or path.split(".")[0] in columns


def _batch_rows(chunk: "pq.ColumnChunkMetaData", num_rows: int) -> int:
    """How many rows of a column may be decoded at once.

    With a dictionary, every row may be its longest value, which is at most as long as the dictionary. A delta-coded value is
    at most as long as everything stored.
    """
    stored, num_bytes = max(1, chunk.total_compressed_size), max(1, chunk.total_uncompressed_size)
    batch_rows = min(_MAX_BATCH_ROWS, _BATCH_BYTES * num_rows // num_bytes)
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
        dictionary_bytes = (chunk.data_page_offset - chunk.dictionary_page_offset) * num_bytes // stored
        batch_rows = min(batch_rows, _REPEATED_BYTES // max(1, dictionary_bytes))
    if _REPEATS_STARTS in chunk.encodings:
        batch_rows = min(batch_rows, _REPEATED_BYTES // num_bytes)
    return batch_rows


def _validated(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """The batch, if its offsets point inside it: Arrow itself trusts a mapped file. Raises ArrowInvalid.

    Text is validated as bytes, so that one string that is not UTF-8 does not refuse the others.
    """
    import pyarrow as pa

    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    for column in batch.columns:
        (column.view(as_bytes[column.type]) if column.type in as_bytes else column).validate(full=True)
    return batch


def table_rows(batch: "pa.RecordBatch", first_record: int, origin: Origin, max_bytes: int) -> Iterator[Document | Refused]:
    """The documents of a batch's rows."""
    if origin.source.instructions != "no":
        yield from _conversations(batch, first_record, origin)
        return
    text = batch.column(batch.schema.get_field_index(origin.source.text_field))
    names = _labels(origin.source)
    labels = {name: batch.column(batch.schema.get_field_index(name)) for name in batch.schema.names if name in names}
    labels.pop(origin.source.text_field, None)
    for row in range(batch.num_rows):
        record = first_record + row
        try:
            fields = {name: _label_value(column[row]) for name, column in labels.items()}
            value, changes = _text_value(text[row], max_bytes, origin.source.replace_undecodable)
            yield from_fields({**fields, origin.source.text_field: value}, record, None, origin, changes)
        except Unusable as problem:
            yield problem.refused(origin.uri, record)


def _conversations(batch: "pa.RecordBatch", first_record: int, origin: Origin) -> Iterator[Document | Refused]:
    for row in range(batch.num_rows):
        record = first_record + row
        try:
            try:
                fields = {name: column[row].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
            except UnicodeDecodeError as error:
                raise Unusable("undecodable", f"byte {error.start}: {error.reason}") from error
            yield from_fields(fields, record, None, origin)
        except Unusable as problem:
            yield problem.refused(origin.uri, record)


def _text_value(scalar: Any, max_bytes: int, max_replaced: float) -> tuple[str | None, tuple[tuple[str, int], ...]]:
    """(A string's value, what was replaced in it). The bytes are not copied before their number is known to be in the limit.

    Raises Unusable.
    """
    import pyarrow as pa

    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    data = scalar.as_buffer()
    if data is None:
        return None, ()
    if data.size > max_bytes:
        raise Unusable("too_large", f"a text of {data.size:,} bytes, more than {max_bytes:,}")
    try:
        return str(memoryview(data), "utf-8"), ()
    except UnicodeDecodeError as error:
        text = str(memoryview(data), "utf-8", "replace") if max_replaced else ""
        num_replaced = text.count("\ufffd") - data.to_pybytes().count(b"\xef\xbf\xbd") if text else 0
        if not 0 < num_replaced <= max_replaced * len(text):
            raise Unusable("undecodable", f"byte {error.start}: {error.reason}") from error
        return text, (("undecodable", num_replaced),)


def _label_value(scalar: Any) -> object:
    import pyarrow as pa

    kind = scalar.type.value_type if pa.types.is_dictionary(scalar.type) else scalar.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return None
