"""Compressed files that are cut short, damaged, or made to fill the memory."""

import gzip
import json
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.reading.compression import BLOCK_BYTES, inflated
from tasks.ingest.reading.records import Unusable
from tests.tasks.ingest.reading_example import read

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
LINES = [json.dumps({"text": f"line {i} " + random.Random(i).randbytes(2000).hex()}) for i in range(100)]


def blocks(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("suffix", COMPRESS)
@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50))
def test_several_members_are_one_content(suffix: str, members: list[bytes], size: int) -> None:
    data = b"".join(map(COMPRESS[suffix], members))
    assert b"".join(inflated(iter(blocks(data, size)), suffix, len(data), 200)) == b"".join(members)


def test_zeros_behind_a_gzip_member_are_padding() -> None:
    data = gzip.compress(b"a") + bytes(700) + gzip.compress(b"b") + bytes(3)
    assert b"".join(inflated(iter(blocks(data, 11)), ".gz", None, 200)) == b"ab"


@pytest.mark.parametrize("suffix", COMPRESS)
@given(data=st.data())
def test_every_cut_is_noticed(suffix: str, data: st.DataObject) -> None:
    content = random.Random(0).randbytes(50) * 20
    whole = COMPRESS[suffix](content)
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    given_back = bytearray()
    with pytest.raises(Unusable, match="truncated"):
        given_back.extend(byte for block in inflated(iter([cut]), suffix, len(cut), 200) for byte in block)
    assert content.startswith(given_back)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_documents_before_a_cut_stay(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix]("\n".join(LINES).encode())
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / f"b.txt{suffix}").write_bytes(whole[: len(whole) // 2])
    found = read(str(tmp_path))
    texts = [json.loads(line)["text"] for line in LINES]
    assert 20 < len(found.texts) < 70
    assert found.texts == texts[: len(found.texts)]
    assert found.reasons == {
        (f"a.jsonl{suffix}", len(found.texts) + 1): "truncated",
        (f"b.txt{suffix}", 0): "truncated",
    }


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_wrong_checksum_is_corrupt(tmp_path: Path, suffix: str) -> None:
    whole = bytearray(COMPRESS[suffix]("\n".join(LINES).encode()))
    whole[-6 if suffix == ".gz" else -2] ^= 1
    (tmp_path / f"a.txt{suffix}").write_bytes(whole)
    (tmp_path / f"b.jsonl{suffix}").write_bytes(whole)
    (tmp_path / f"c.txt{suffix}").write_bytes(b"not compressed at all")
    found = read(str(tmp_path))
    assert {name: reason for (name, _), reason in found.reasons.items()} == dict.fromkeys(
        (f"a.txt{suffix}", f"b.jsonl{suffix}", f"c.txt{suffix}"), "corrupt"
    )


@pytest.mark.parametrize("suffix", COMPRESS)
def test_only_what_is_both_large_and_grows_too_much_is_a_bomb(tmp_path: Path, suffix: str) -> None:
    small = "The same line.\n" * 60_000  # 0.9 MB: grows 300 times and more, but is small
    large = "The same line.\n" * 1_200_000  # 18 MB
    (tmp_path / f"small.txt{suffix}").write_bytes(COMPRESS[suffix](small.encode()))
    (tmp_path / f"large.txt{suffix}").write_bytes(COMPRESS[suffix](large.encode()))
    found = read(str(tmp_path))
    assert found.reasons == {(f"large.txt{suffix}", 0): "decompression_bomb"}
    assert found.texts == [small]
    assert read(str(tmp_path), max_expansion=100_000).refused == []


def bomb(suffix: str, num_megabytes: int) -> bytes:
    compressor = zstandard.ZstdCompressor().compressobj() if suffix == ".zst" else zlib.compressobj(9, wbits=31)
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(num_megabytes)) + compressor.flush()


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.slow
def test_a_bomb_never_fills_the_memory(suffix: str) -> None:
    data = bomb(suffix, 300)
    sizes: list[int] = []
    with pytest.raises(Unusable, match="decompression_bomb"):
        sizes.extend(len(block) for block in inflated(iter([data]), suffix, len(data), 200))
    assert max(sizes, default=0) <= (BLOCK_BYTES if suffix == ".gz" else 33 << 20)


PEAK = """
import resource, sys
from data_schemas.params import CorpusParams
from tasks.ingest.corpus_units import plan_corpus, read_unit
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
params = CorpusParams(sources=(sys.argv[1],), max_document_megabytes=20)
before = peak()
for unit in plan_corpus(params).units:
    for found in read_unit(unit, params):
        print(found.record, getattr(found, "reason", "") or found.text)
print(peak() - before)
"""


def peak_megabytes(folder: Path) -> tuple[list[str], float]:
    """(what was read, by how many MB the peak of a process of its own rose)."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=True)
    *lines, peak = done.stdout.splitlines()
    return lines, float(peak)


@pytest.mark.slow
def test_a_line_of_a_gigabyte_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        file.seek(1 << 30, os.SEEK_CUR)  # a hole of zeros
        file.write(b'"}\n{"text": "after"}\n')
    lines, peak = peak_megabytes(tmp_path)
    assert lines == ["1 before", "2 too_large", "3 after"]
    assert peak < 70


@pytest.mark.slow
def test_compressed_gigabytes_cost_no_more_than_the_limit(tmp_path: Path) -> None:
    for suffix in COMPRESS:
        (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](b'{"text": "before"}\n') + bomb(suffix, 1000))
        (tmp_path / f"b.txt{suffix}").write_bytes(bomb(suffix, 1000))
    lines, peak = peak_megabytes(tmp_path)
    # Deflate grows a thousand times at most, so the limit on a document stops it first.
    assert lines == ["1 before", "2 decompression_bomb"] * 2 + ["0 too_large", "0 decompression_bomb"]
    assert peak < 130
