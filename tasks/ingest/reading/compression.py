"""Decompression block by block. Truncated or corrupt data and bombs raise Unusable, after all blocks before were yielded."""

import zlib
from collections.abc import Iterator

from tasks.ingest.reading.records import Unusable

BLOCK_BYTES = 1 << 20
_BOMB_FLOOR_BYTES = 16 << 20
# A Zstandard block of 128 KiB may take 4 bytes, and the library decodes all it is given: 1 KiB bounds a step to 32 MiB.
_ZSTD_INPUT_BYTES = 1 << 10


def inflated(blocks: Iterator[bytes], suffix: str, stored_bytes: int | None, max_expansion: float) -> Iterator[bytes]:
    """The content of a .gz or .zst file from its bytes; several members or frames are one content.

    `stored_bytes`: size of the compressed file; if None (unknown), the bytes read so far count.
    Raises Unusable: truncated, corrupt, decompression_bomb.
    """
    num_read = 0

    def counted() -> Iterator[bytes]:
        nonlocal num_read
        for block in blocks:
            num_read += len(block)
            yield block

    num_given = 0
    for block in (_gunzip if suffix == ".gz" else _unzstd)(counted()):
        num_given += len(block)
        refuse_bomb(num_given, num_read if stored_bytes is None else stored_bytes, max_expansion)
        yield block


def refuse_bomb(num_bytes: int, stored_bytes: int, max_expansion: float) -> None:
    """Raise Unusable if `num_bytes` is above 16 MiB and more than `max_expansion` times `stored_bytes`."""
    if num_bytes > _BOMB_FLOOR_BYTES and num_bytes > max_expansion * stored_bytes:
        raise Unusable("decompression_bomb", f"{stored_bytes:,} bytes grow to more than {max_expansion:g} times as many")


def _gunzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=31)
    is_inside = False  # a member has begun and not ended
    for block in blocks:
        while True:
            if not is_inside:
                block = block.lstrip(b"\0")  # padding between members, as tapes have it
            if not block and not is_inside:
                break
            is_inside = True
            try:
                data = inflater.decompress(block, BLOCK_BYTES)
            except zlib.error as error:
                raise Unusable("corrupt", str(error)) from error
            yield data
            if inflater.eof:
                block, inflater, is_inside = inflater.unused_data, zlib.decompressobj(wbits=31), False
            else:
                block = inflater.unconsumed_tail
                if not block and len(data) < BLOCK_BYTES:
                    break
    if is_inside:
        raise Unusable("truncated", "the gzip file ends too early")


def _unzstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard

    library = zstandard.ZstdDecompressor()
    inflater = library.decompressobj()
    is_inside = False
    for block in blocks:
        for start in range(0, len(block), _ZSTD_INPUT_BYTES):
            rest = block[start : start + _ZSTD_INPUT_BYTES]
            while rest:
                is_inside = True
                try:
                    data = inflater.decompress(rest)
                except zstandard.ZstdError as error:
                    raise Unusable("corrupt", str(error)) from error
                yield data
                rest = b""
                if inflater.eof:
                    rest, inflater, is_inside = inflater.unused_data, library.decompressobj(), False
    if is_inside:
        raise Unusable("truncated", "the zstd file ends too early")
