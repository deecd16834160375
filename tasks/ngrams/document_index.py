"""An index of the word n-grams of some documents: which n-grams there are, and every document that has each.

texts ─ ngram_part ─▶ parts, one for each unit of work ─ build_index ─▶ NgramIndex, a folder of memory-mapped arrays
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

DOCUMENT_NGRAMS = np.dtype([("hash", "<u8"), ("document", "<u4")])  # `document` counts within the part
NGRAM_FILES = ("ngrams.u64", "ngrams.bits", "owner_ends.i64", "owners.u32", "sizes.npy")
_MERGE_NGRAMS = 4_000_000


class HashFilter:
    """Rules out most hashes that are not in a table: a Bloom filter with one bit a hash, addressed by its highest bits.

    Sorted hashes then walk through the filter, eight bits a hash, instead of jumping through the table, eight bytes a hash.
    """

    def __init__(self, bits: np.ndarray) -> None:
        self._bits = bits
        self._shift = np.uint64(64 - (8 * len(bits)).bit_length() + 1)

    @staticmethod
    def num_bytes(num_hashes: int) -> int:
        """Length of `bits`, uint8, for this many hashes: a power of two."""
        return 1 << max(0, num_hashes - 1).bit_length()

    def add(self, hashes: np.ndarray) -> None:
        position = hashes >> self._shift
        np.bitwise_or.at(self._bits, position >> np.uint64(3), np.uint8(1) << (position & np.uint64(7)).astype(np.uint8))

    def may_hold(self, hashes: np.ndarray) -> np.ndarray:
        """bool [n]: false only for hashes that were never added."""
        position = hashes >> self._shift
        return (self._bits[position >> np.uint64(3)] >> (position & np.uint64(7)).astype(np.uint8)) & np.uint8(1) == 1


class NgramIndex:
    """The n-grams of documents 0 to n, memory-mapped from a folder. A *place* numbers an n-gram, in the order of its hash.

    Raises OSError where the folder is not complete.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __reduce__(self) -> tuple[type[NgramIndex], tuple[Path]]:
        return NgramIndex, (self.directory,)

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
    def hashes(self) -> np.ndarray:
        """uint64 [n-grams], ascending."""
        return _mapped(self.directory / "ngrams.u64", "<u8")

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 [documents]: different n-grams of each document."""
        return np.load(self.directory / "sizes.npy")

    @cached_property
    def _filter(self) -> HashFilter:
        return HashFilter(_mapped(self.directory / "ngrams.bits", "u1"))

    @cached_property
    def _owner_ends(self) -> np.ndarray:
        return _mapped(self.directory / "owner_ends.i64", "<i8")

    @cached_property
    def _owners(self) -> np.ndarray:
        return _mapped(self.directory / "owners.u32", "<u4")

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """int64 [found]: places of those of the `hashes`, ascending, that are in the index."""
        return found_in(hashes[self._filter.may_hold(hashes)], self.hashes)[0]

    def owners_of(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(uint32 [m] documents that have the n-grams `places`, int64 [m] for each of them its number in `places`)."""
        ends = self._owner_ends[places]
        counts = ends - np.where(places > 0, self._owner_ends[np.maximum(places - 1, 0)], 0)
        which = np.repeat(np.arange(len(places)), counts)
        before = np.cumsum(counts) - counts
        return self._owners[np.arange(len(which)) - before[which] + (ends - counts)[which]], which

    def num_owners(self, is_counted: np.ndarray) -> np.ndarray:
        """int64 [n-grams]: how many of the documents that are true in `is_counted` have each n-gram."""
        counts = np.zeros(len(self), np.int64)
        for start in range(0, len(self), _MERGE_NGRAMS):
            places = np.arange(start, min(start + _MERGE_NGRAMS, len(self)))
            owners, which = self.owners_of(places)
            counts[places] = np.bincount(which[is_counted[owners]], minlength=len(places))
        return counts

    def count_by_document(self, is_counted: np.ndarray) -> np.ndarray:
        """int64 [documents]: how many of each document's n-grams are true in `is_counted`, bool [n-grams]."""
        counts = np.zeros(len(self.sizes), np.int64)
        for start in range(0, len(self), _MERGE_NGRAMS):
            places = start + np.flatnonzero(is_counted[start : start + _MERGE_NGRAMS])
            counts += np.bincount(self.owners_of(places)[0], minlength=len(counts))
        return counts


def ngram_part(ngrams: Sequence[np.ndarray]) -> np.ndarray:
    """DOCUMENT_NGRAMS [n], ascending, from `distinct_ngrams` of some texts: one part of what `build_index` merges."""
    hashes = np.concatenate([np.empty(0, np.uint64), *ngrams])
    documents = np.repeat(np.arange(len(ngrams), dtype=np.uint32), [len(of_document) for of_document in ngrams])
    return _sorted(hashes, documents)


def build_index(directory: Path, parts: Sequence[Path | np.ndarray], num_documents: Sequence[int]) -> NgramIndex:
    """Write the index into `directory` and open it.

    Args:
        parts: what `ngram_part` returned, as arrays or `.npy` files of them.
        num_documents: of each part; documents are numbered through the parts.

    Memory: about 200 MB for merging, for any number of n-grams.
    """
    directory.mkdir(parents=True, exist_ok=True)
    arrays = opened(parts)
    num_pairs = sum(len(array) for array in arrays)
    sizes = np.zeros(sum(num_documents), np.int64)
    bits = np.memmap(directory / "ngrams.bits", np.uint8, "w+", shape=HashFilter.num_bytes(num_pairs))
    seen = HashFilter(bits)
    num_written = 0
    with (
        (directory / "ngrams.u64").open("wb") as hashes,
        (directory / "owner_ends.i64").open("wb") as ends,
        (directory / "owners.u32").open("wb") as owners,
    ):
        for merged in merged_ranges(arrays, num_documents):
            is_last = np.ones(len(merged), bool)
            np.not_equal(merged["hash"][1:], merged["hash"][:-1], out=is_last[:-1])
            distinct = merged["hash"][is_last]
            seen.add(distinct)
            hashes.write(distinct.tobytes())  # ndarray.tofile would hide a full disk
            ends.write((num_written + 1 + np.flatnonzero(is_last)).astype("<i8").tobytes())
            owners.write(merged["document"].astype("<u4").tobytes())
            sizes += np.bincount(merged["document"], minlength=len(sizes))
            num_written += len(merged)
    bits.flush()
    np.save(directory / "sizes.npy", sizes)
    return NgramIndex(directory)


def opened(parts: Sequence[Path | np.ndarray]) -> list[np.ndarray]:
    """Arrays of DOCUMENT_NGRAMS; files are memory-mapped."""
    return [np.load(part, mmap_mode="r") if isinstance(part, Path) else part for part in parts]


def merged_ranges(arrays: Sequence[np.ndarray], num_documents: Sequence[int]) -> Iterator[np.ndarray]:
    """DOCUMENT_NGRAMS of all parts in ascending order, some millions at a time; all of a hash are in one piece.

    Documents are numbered through the parts, which have `num_documents` each.
    """
    num_ranges = 1 + sum(len(array) for array in arrays) // _MERGE_NGRAMS
    limits = np.array([i * 2**64 // num_ranges for i in range(num_ranges)], np.uint64)
    cuts = [[*np.searchsorted(array["hash"], limits).tolist(), len(array)] for array in arrays]
    offsets = np.cumsum([0, *num_documents])
    for i in range(num_ranges):
        pieces = [array[cut[i] : cut[i + 1]] for array, cut in zip(arrays, cuts, strict=True)]
        documents = [piece["document"] + np.uint32(offset) for piece, offset in zip(pieces, offsets, strict=False)]
        yield _sorted(
            np.concatenate([np.empty(0, np.uint64), *(piece["hash"] for piece in pieces)]),
            np.concatenate([np.empty(0, np.uint32), *documents]),
        )


def found_in(hashes: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64 places in `table`, the hashes) of those `hashes` that are in `table`; all ascending."""
    if not len(table):
        return np.empty(0, np.int64), hashes[:0]
    places = np.searchsorted(table, hashes)
    is_found = table[np.minimum(places, len(table) - 1)] == hashes
    return places[is_found], hashes[is_found]


def _sorted(hashes: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """DOCUMENT_NGRAMS by hash, and by document where hashes are equal; `documents` ascend."""
    order = np.argsort(hashes, kind="stable")
    ordered = np.empty(len(order), DOCUMENT_NGRAMS)
    ordered["hash"], ordered["document"] = hashes[order], documents[order]
    return ordered


def _mapped(path: Path, dtype: str) -> np.ndarray:
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)
