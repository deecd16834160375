"""Sizes of the record batches of an Arrow IPC file, read before anything is decoded.

A compressed buffer starts with its decompressed size, but Arrow's readers decompress a whole batch before that can be checked.
So messages are read here without their content: https://arrow.apache.org/docs/format/Columnar.html (IPC, Buffer Compression)
and the tables of `Message.fbs` and `File.fbs`, in the encoding of https://flatbuffers.dev/internals/.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.ingest.reading.records import Unusable

if TYPE_CHECKING:
    import pyarrow as pa

FILE_MAGIC = b"ARROW1"
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # MessageHeader
_SIZE = struct.Struct("<q")  # before each compressed buffer
_NOT_COMPRESSED = -1


@dataclass(frozen=True)
class BatchHeader:
    """A record batch or the values of a dictionary: number of rows, and (stored bytes, decompressed bytes) of each buffer."""

    is_dictionary: bool
    num_rows: int
    buffers: tuple[tuple[int, int], ...]
    num_variadic: tuple[int, ...]  # data buffers of each column of a view type

    @property
    def stored_bytes(self) -> int:
        return sum(stored for stored, _ in self.buffers)

    def size_of(self, schema: "pa.Schema", columns: Sequence[str]) -> tuple[int, int]:
        """(stored bytes, decompressed bytes) of some columns; of all buffers for a dictionary. Raises Unusable."""
        if self.is_dictionary:
            counted: list[tuple[int, int]] = list(self.buffers)
        else:
            counted = []
            at = 0
            variadic = iter(self.num_variadic)
            for field in schema:
                num_buffers = _num_buffers(field.type, variadic)
                counted += self.buffers[at : at + num_buffers] if field.name in columns else ()
                at += num_buffers
            if at != len(self.buffers):
                raise Unusable("corrupt", f"a record batch has {len(self.buffers)} buffers, its schema {at}")
        return sum(stored for stored, _ in counted), sum(grown for _, grown in counted)


def batch_headers(source: "pa.NativeFile", is_file: bool) -> Iterator[BatchHeader]:
    """Headers of the dictionaries and record batches of an IPC file (dictionaries first, as the table of contents has them)
    or stream (as they come). Raises Unusable or ArrowInvalid."""
    import pyarrow as pa

    try:
        if is_file:
            for offset in _offsets(source):
                source.seek(offset)
                if header := _header(pa.ipc.read_message(source)):
                    yield header
            return
        for message in pa.ipc.MessageReader.open_stream(source):
            if header := _header(message):
                yield header
    except (struct.error, IndexError) as error:
        raise Unusable("corrupt", "a message does not have the form of Arrow's") from error


def _offsets(source: "pa.NativeFile") -> list[int]:
    """Offsets of the dictionaries, then of the record batches, from the footer of an IPC file."""
    size = source.size()
    source.seek(size - len(FILE_MAGIC) - 4)
    (footer_bytes,) = struct.unpack("<i", source.read(4))
    if source.read(len(FILE_MAGIC)) != FILE_MAGIC or not 0 < footer_bytes <= size:
        raise Unusable("corrupt", "no table of contents at the end")
    source.seek(size - len(FILE_MAGIC) - 4 - footer_bytes)
    footer = _Table.root(source.read(footer_bytes))
    blocks = (footer.structs(2, 24), footer.structs(3, 24))  # Footer.dictionaries, Footer.recordBatches
    return [struct.unpack_from("<q", block)[0] for found in blocks for block in found]


def _header(message: "pa.Message") -> BatchHeader | None:
    root = _Table.root(message.metadata.to_pybytes())
    kind = root.number(1, "<B")  # Message.header_type
    header = root.table(2)  # Message.header
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or header is None:
        return None
    batch = header.table(1) if kind == _DICTIONARY_BATCH else header  # DictionaryBatch.data
    if batch is None:
        return None
    is_compressed = batch.table(3) is not None  # RecordBatch.compression
    body = memoryview(message.body) if message.body is not None else memoryview(b"")
    buffers = []
    for found in batch.structs(2, 16):  # RecordBatch.buffers
        offset, stored = struct.unpack("<qq", found)
        grown = stored
        if is_compressed and stored:
            (declared,) = _SIZE.unpack_from(body, offset)
            grown = stored - _SIZE.size if declared == _NOT_COMPRESSED else declared
        if grown < 0:
            raise Unusable("corrupt", "a buffer of a negative size")
        buffers.append((stored, grown))
    return BatchHeader(
        is_dictionary=kind == _DICTIONARY_BATCH,
        num_rows=batch.number(0, "<q"),
        buffers=tuple(buffers),
        num_variadic=tuple(struct.unpack("<q", found)[0] for found in batch.structs(4, 8)),
    )


def _num_buffers(kind: "pa.DataType", variadic: Iterator[int]) -> int:
    """Number of buffers of a column of this type in a record batch, those of its children included."""
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _num_buffers(kind.storage_type, variadic)
    if types.is_dictionary(kind):
        return _num_buffers(kind.index_type, variadic)
    if types.is_null(kind):
        own = 0
    elif types.is_string_view(kind) or types.is_binary_view(kind):
        own = 2 + next(variadic, 0)
    elif types.is_list_view(kind) or types.is_large_list_view(kind):
        own = 3
    elif types.is_run_end_encoded(kind):
        return _num_buffers(kind.run_end_type, variadic) + _num_buffers(kind.value_type, variadic)
    elif types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        own = 3
    elif types.is_struct(kind) or types.is_fixed_size_list(kind):
        own = 1
    elif types.is_union(kind):
        own = 2 if kind.mode == "dense" else 1
    else:
        own = 2
    return own + sum(_num_buffers(kind.field(i).type, variadic) for i in range(kind.num_fields))


class _Table:
    """A FlatBuffers table. `struct.error` and IndexError for what points outside the buffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        (self._num_bytes,) = struct.unpack_from("<H", data, self._fields)

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, struct.unpack_from("<I", data)[0])

    def number(self, field: int, form: str) -> int:
        place = self._place(field)
        return int(struct.unpack_from(form, self._data, place)[0]) if place else 0

    def table(self, field: int) -> "_Table | None":
        place = self._place(field)
        return _Table(self._data, place + struct.unpack_from("<I", self._data, place)[0]) if place else None

    def structs(self, field: int, num_bytes: int) -> Iterator[bytes]:
        """The elements, of `num_bytes` each, of a vector of structs or numbers."""
        if not (place := self._place(field)):
            return
        start = place + struct.unpack_from("<I", self._data, place)[0]
        (length,) = struct.unpack_from("<I", self._data, start)
        if start + 4 + length * num_bytes > len(self._data):
            raise IndexError(length)
        for at in range(start + 4, start + 4 + length * num_bytes, num_bytes):
            yield self._data[at : at + num_bytes]

    def _place(self, field: int) -> int:
        slot = 4 + 2 * field
        if slot + 2 > self._num_bytes:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._fields + slot)[0]
        return self._at + offset if offset else 0
