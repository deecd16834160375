"""Words and word n-grams of a text as 64-bit hashes, by which near-duplicates and contamination are found.

A word is a run of letters, digits and marks, compared without case and accents; everything else only separates words.
A Han character or a kana is a word of its own. Scripts that write phrases without spaces (Thai, Lao, Khmer) therefore count
a phrase as one word. The same text has the same hashes on every machine.

Everything is vectorised over blocks of characters: a word's hash is a polynomial in its characters, taken from prefix sums
modulo 2**64 (an odd base has an inverse there, so a prefix can be divided away), and an n-gram's is one in its words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_BLOCK_CHARACTERS = 1 << 15  # small enough for the cache
_SEPARATOR, _SKIPPED = 0, 1  # values of the folding table that are not folded code points
_IS_WORD_ALONE = np.uint32(1 << 31)
_CHARACTER_BASE = 0x9E3779B97F4A7C15
_WORD_BASE = 0xD1342543DE82EF95
_WHOLE_WORD_RANGES = ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
                      (0x4E00, 0x9FFF), (0xF900, 0xFAFF))  # fmt: skip


@dataclass(frozen=True)
class HashedSpans:
    """Words or n-grams in the order of the text: `hashes` uint64 [n], characters `starts` and `ends` int64 [n]."""

    hashes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def ngram_hashes(text: str, num_words: int) -> np.ndarray:
    """uint64 [n]: a hash for each run of `num_words` words, in the order of the text.

    A shorter text has one hash, of all its words, which equals no hash of a longer run. A text without words has none.
    """
    return np.concatenate([np.empty(0, np.uint64), *(block.hashes for block in ngram_blocks(text, num_words))])


def num_words_of(text: str) -> int:
    """Number of words, as counted here."""
    return sum(len(block.hashes) for block in word_blocks(text))


def distinct_ngrams(text: str, num_words: int) -> np.ndarray:
    """uint64 [n]: the different hashes of `ngram_hashes`, ascending."""
    return distinct(ngram_hashes(text, num_words))


def distinct(hashes: np.ndarray) -> np.ndarray:
    """The different values, ascending; NumPy's own `unique` takes more time than everything else here together."""
    ordered = np.sort(hashes)
    is_new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return ordered[is_new]


def ngram_blocks(text: str, num_words: int) -> Iterator[HashedSpans]:
    """The n-grams of `ngram_hashes` with their positions, a block at a time, so memory does not grow with the text."""
    for blocks in ngram_blocks_of_sizes(text, (num_words,)):
        yield blocks[num_words]


def ngram_blocks_of_sizes(text: str, sizes: Sequence[int]) -> Iterator[dict[int, HashedSpans]]:
    """`ngram_blocks` for several numbers of words at once; the words are hashed once.

    Each block of characters gives the n-grams that end in it, by number of words. A number is absent where there are none.
    """
    waiting = dict.fromkeys(sizes, _NO_SPANS)  # words that a later n-gram needs
    incomplete = set(sizes)
    for block in word_blocks(text):
        found = {}
        for num_words, carried in waiting.items():
            words = _joined(carried, block)
            if len(words.hashes) >= num_words:
                incomplete.discard(num_words)
                found[num_words] = _ngrams(words, num_words)
            keep = max(0, len(words.hashes) - num_words + 1)
            waiting[num_words] = HashedSpans(words.hashes[keep:], words.starts[keep:], words.ends[keep:])
        if found:
            yield found
    shorter = {num_words: waiting[num_words] for num_words in incomplete if len(waiting[num_words].hashes)}
    if shorter:
        yield {num_words: _ngrams(words, len(words.hashes)) for num_words, words in shorter.items()}


def word_blocks(text: str) -> Iterator[HashedSpans]:
    """The words of `text`, a block of characters at a time."""
    start = 0
    while start < len(text):
        end = min(start + _BLOCK_CHARACTERS, len(text))
        if end < len(text):  # not through a word; one longer than a block is cut
            end = max(text.rfind(" ", start, end), text.rfind("\n", start, end)) + 1 or end
        yield _words(text, start, end)
        start = end


def _words(text: str, start: int, end: int) -> HashedSpans:
    codes = np.frombuffer(text[start:end].encode("utf-32-le", "surrogatepass"), "<u4")
    folded = _fold(codes)
    place = None
    if (folded == _SKIPPED).any():
        place = np.flatnonzero(folded != _SKIPPED)
        folded = folded[place]
    is_word = folded > _SKIPPED
    joins = is_word & (folded < _IS_WORD_ALONE)
    joins_previous = np.zeros(len(folded) + 1, bool)
    np.logical_and(joins[1:], joins[:-1], out=joins_previous[1:-1])
    firsts = np.flatnonzero(is_word & ~joins_previous[:-1])
    lasts = np.flatnonzero(is_word & ~joins_previous[1:])
    hashes = _polynomials(folded, _CHARACTER_BASE, firsts, lasts + 1)
    if place is not None:
        firsts, lasts = place[firsts], place[lasts]
    return HashedSpans(_mixed(hashes), firsts + start, lasts + (start + 1))


def _ngrams(words: HashedSpans, num_words: int) -> HashedSpans:
    first = np.arange(len(words.hashes) - num_words + 1)
    hashes = _polynomials(words.hashes, _WORD_BASE, first, first + num_words)
    return HashedSpans(_mixed(hashes + np.uint64(num_words)), words.starts[first], words.ends[first + num_words - 1])


def _polynomials(values: np.ndarray, base: int, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sum of values[i] * base ** (i - start) over each span, modulo 2**64: uint64 [spans]."""
    powers, inverses = _powers(base)
    prefix = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers[: len(values)], out=prefix[1:])
    return (prefix[ends] - prefix[starts]) * inverses[starts]


@lru_cache(maxsize=2)
def _powers(base: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of `base` and of its inverse modulo 2**64, for one block and the words carried into it."""
    size = _BLOCK_CHARACTERS + 1024
    return tuple(  # type: ignore[return-value]
        np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full(size - 1, b, np.uint64)]))
        for b in (base, pow(base, -1, 2**64))
    )


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the input moves every bit of the output."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _fold(codes: np.ndarray) -> np.ndarray:
    """uint32: the folded code point, _IS_WORD_ALONE added where it is a word of its own, _SEPARATOR or _SKIPPED."""
    folded = _fold_table().take(codes, mode="clip")
    beyond = np.flatnonzero(codes > 0xFFFF)
    if len(beyond):
        rare = codes[beyond]
        is_symbol = (rare >= 0x1F000) & (rare < 0x20000)
        folded[beyond] = np.where(is_symbol, np.uint32(_SEPARATOR), rare | np.where(rare >= 0x20000, _IS_WORD_ALONE, 0))
    return folded


@lru_cache(maxsize=1)
def _fold_table() -> np.ndarray:
    table = np.array([_folded(chr(code)) for code in range(0x10000)], np.uint32)
    for first, last in _WHOLE_WORD_RANGES:
        table[np.flatnonzero((table >= first) & (table <= last))] |= _IS_WORD_ALONE
    return table


def _folded(character: str) -> int:
    if "\u0300" <= character <= "\u036f" or unicodedata.category(character) == "Cf":
        return _SKIPPED  # so composed and decomposed accents are one, and soft hyphens none
    base = [c for c in unicodedata.normalize("NFKD", character) if not "\u0300" <= c <= "\u036f"]
    folded = (base[0] if len(base) == 1 else character).lower()
    if len(folded) != 1:
        folded = character
    return ord(folded) if unicodedata.category(folded)[0] in "LNM" else _SEPARATOR


def _joined(first: HashedSpans, second: HashedSpans) -> HashedSpans:
    if not len(first.hashes):
        return second
    pairs = ((first.hashes, second.hashes), (first.starts, second.starts), (first.ends, second.ends))
    return HashedSpans(*(np.concatenate(pair) for pair in pairs))


_NO_SPANS = HashedSpans(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
