"""Training documents that contain evaluated text, found by shared word n-grams.

After GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C): n-grams of 13 words, and those found in more than ten training
documents are boilerplate that does not count. A training document is removed in three cases: it shares one n-gram with an
evaluation prompt; `heldout_share` of its n-grams occur in held-out documents; or it contains that share of one held-out
document, as the collected works of an author contain a play.

    held-out texts ─ heldout_part ─┐    (index_building.py)
    prompts ───────────────────────┴▶ build_index ─▶ EvaluatedIndex, a folder of memory-mapped arrays
    training texts ─ index.places_of ─▶ mark_common (boilerplate) ─▶ index.judge(text) ─▶ Hit, a row of CONTAMINATION

The pass-key prompts of Ropeway's own evaluation need no entry. Their haystacks are held-out text, their keys are random, and
their fixed sentences have at most nine words: a document that contains one gives no answer away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tasks.ingest.word_ngrams import distinct, distinct_ngrams, ngram_blocks, ngram_hashes

HELDOUT = "heldout"  # value of CONTAMINATION.evaluated_in
INDEX_FILES = (
    "index.json", "heldout.u64", "heldout.bits", "heldout_owners.u32", "heldout_sizes.npy", "prompts.npy", "prompt_owners.npy", "common.npy"
)  # fmt: skip
_MIN_COPIED_NGRAMS = 50  # fewer shared n-grams are a quotation, not a copy
_EXAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class Hit:
    """One row of CONTAMINATION without the document's identity.

    evaluated_in  HELDOUT, or the name of a prompt
    num_shared    different n-grams, boilerplate not counted, that the document shares with `evaluated_in`
    share         num_shared as a part of the document's different n-grams, boilerplate not counted
    copied_share  largest part of one held-out document that this document contains; 0 below 50 n-grams, and for prompts
    example       the first shared passage
    """

    evaluated_in: str
    num_shared: int
    share: float
    copied_share: float
    example: str
    removed: bool


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


class EvaluatedIndex:
    """Every n-gram of held-out documents and evaluation prompts, memory-mapped from a folder; cheap to pickle and to open.

    A *place* numbers an n-gram: those of held-out documents in ascending order of their hashes, then those of prompts.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        about = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        self.ngram_words: int = about["ngram_words"]
        self.heldout_share: float = about["heldout_share"]
        self.prompt_lengths: list[int] = about["prompt_lengths"]
        self.prompt_names: list[str] = about["prompt_names"]
        self.short_prompts: list[str] = about["short_prompts"]

    def __reduce__(self) -> tuple[type[EvaluatedIndex], tuple[Path]]:
        return EvaluatedIndex, (self.directory,)

    def __len__(self) -> int:
        return len(self.heldout) + len(self._prompts)

    @cached_property
    def heldout(self) -> np.ndarray:
        """uint64 [n], ascending: n-grams of held-out documents."""
        return _mapped(self.directory / "heldout.u64", "<u8")

    @cached_property
    def _filter(self) -> HashFilter:
        return HashFilter(_mapped(self.directory / "heldout.bits", "u1"))

    @cached_property
    def heldout_owners(self) -> np.ndarray:
        """uint32 [n]: for each n-gram the number of the first held-out document that has it."""
        return _mapped(self.directory / "heldout_owners.u32", "<u4")

    @cached_property
    def _heldout_sizes(self) -> np.ndarray:
        """int64 [held-out documents]: n-grams that each document owns, without boilerplate."""
        return np.load(self.directory / "heldout_sizes.npy")

    @cached_property
    def _prompts(self) -> np.ndarray:
        return np.load(self.directory / "prompts.npy")

    @cached_property
    def _owners(self) -> np.ndarray:
        return np.load(self.directory / "prompt_owners.npy")

    @cached_property
    def is_common(self) -> np.ndarray:
        """bool [len(self)]: whether each n-gram is boilerplate; all false before `mark_common`."""
        return np.load(self.directory / "common.npy", mmap_mode="r")

    def forget_common(self) -> None:
        """Read `is_common` from its file again at the next use."""
        for name in ("is_common", "_heldout_sizes"):
            self.__dict__.pop(name, None)

    def places_of(self, text: str) -> np.ndarray:
        """int64 [n]: places of the n-grams of `text` that are in the index, each once; empty if it shares nothing."""
        mine = distinct_ngrams(text, self.ngram_words)
        of_heldout, _ = self._found_in_heldout(mine)
        of_prompts, _ = _found(self._prompt_ngrams(text, mine), self._prompts)
        return np.concatenate([of_heldout, of_prompts + len(self.heldout)])

    def judge(self, text: str) -> list[Hit]:
        """What a training document shares with the evaluated texts: at most one Hit for held-out text, one for each prompt."""
        mine = distinct_ngrams(text, self.ngram_words)
        return [*self._heldout_hits(text, mine), *self._prompt_hits(text, mine)]

    def ignored_prompts(self) -> list[str]:
        """Names of the prompts that cannot remove anything because all their n-grams are boilerplate.

        A famous question that occurs in many documents is one of these, so a report should name them.
        """
        is_common = self.is_common[len(self.heldout) :]
        num_left = np.bincount(self._owners[~is_common], minlength=len(self.prompt_names))
        num_owned = np.bincount(self._owners, minlength=len(self.prompt_names))
        return [self.prompt_names[i] for i in np.flatnonzero((num_owned > 0) & (num_left == 0))]

    def _heldout_hits(self, text: str, mine: np.ndarray) -> Iterable[Hit]:
        places, hashes = self._found_in_heldout(mine)
        counts = ~self.is_common[places]
        shared = hashes[counts]
        if len(shared):
            share = len(shared) / (len(mine) - (len(hashes) - len(shared)))
            copied = self._copied_share(places[counts])
            example = first_passage(text, shared, (self.ngram_words,))
            yield Hit(HELDOUT, len(shared), share, copied, example, max(share, copied) >= self.heldout_share)

    def _found_in_heldout(self, ngrams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _found(ngrams[self._filter.may_hold(ngrams)], self.heldout)

    def _copied_share(self, places: np.ndarray) -> float:
        owners, num_shared = np.unique(self.heldout_owners[places], return_counts=True)
        is_enough = num_shared >= _MIN_COPIED_NGRAMS
        return float(np.max(num_shared[is_enough] / self._heldout_sizes[owners[is_enough]], initial=0.0))

    def _prompt_hits(self, text: str, mine: np.ndarray) -> Iterable[Hit]:
        ngrams = self._prompt_ngrams(text, mine)
        places, hashes = _found(ngrams, self._prompts)
        is_common = self.is_common[places + len(self.heldout)]
        num_counting = len(ngrams) - int(is_common.sum())
        owners, shared = self._owners[places[~is_common]], hashes[~is_common]
        for owner in np.unique(owners):
            of_owner = shared[owners == owner]
            example = first_passage(text, of_owner, self.prompt_lengths)
            yield Hit(self.prompt_names[owner], len(of_owner), len(of_owner) / num_counting, 0.0, example, removed=True)

    def _prompt_ngrams(self, text: str, mine: np.ndarray) -> np.ndarray:
        """The document's n-grams of every length that prompts have, ascending; `mine` are those of the usual length."""
        if not self.prompt_lengths:
            return mine[:0]
        of_length = {self.ngram_words: mine}
        parts = [of_length[n] if n in of_length else ngram_hashes(text, n) for n in self.prompt_lengths]
        return distinct(np.concatenate(parts))


def _mapped(path: Path, dtype: str) -> np.ndarray:
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def _found(hashes: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64 places in `table`, the hashes) of those `hashes` that are in `table`; all ascending."""
    if not len(table):
        return np.empty(0, np.int64), hashes[:0]
    places = np.searchsorted(table, hashes)
    is_found = table[np.minimum(places, len(table) - 1)] == hashes
    return places[is_found], hashes[is_found]


def first_passage(text: str, shared: np.ndarray, lengths: Sequence[int]) -> str:
    """The first run of overlapping n-grams of `text` whose hashes are in `shared`, cut to 200 characters.

    `shared` must hold a hash of an n-gram of one of `lengths` words.
    """
    spans = []
    for block in (block for num_words in lengths for block in ngram_blocks(text, num_words)):
        found = np.isin(block.hashes, shared)
        spans.append(np.stack([block.starts[found], block.ends[found]], axis=1))
    places = np.concatenate(spans)
    places = places[np.argsort(places[:, 0], kind="stable")]
    start, end = (int(place) for place in places[0])
    for next_start, next_end in places[1:].tolist():
        if next_start > end or end - start >= _EXAMPLE_CHARACTERS:
            break
        end = max(end, next_end)
    return text[start : min(end, start + _EXAMPLE_CHARACTERS)]
