"""Byte-level BPE by words: `re` splits a text into the tokenizer's words, and each word is encoded only once.

A byte-level BPE tokenizer first splits a text by a regular expression and then encodes every piece separately, so a table
from piece to ids gives the same ids as the tokenizer. Text repeats its words: splitting and looking up takes about a third of
the time of encoding, and a fifth in Indic scripts, Arabic, Hebrew and Korean; Chinese and Japanese gain little. `find_splitter`
translates a tokenizer's expression to Python's `re`, for characters whose Unicode class is the same in both: in the scripts
above and those of Europe, South-East Asia, punctuation, symbols and emoji. Texts with other characters, and other kinds of
tokenizers, are left to the tokenizer itself.
"""

from __future__ import annotations

import re
import struct
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_KNOWN_RANGES = (
    *((0x00, 0x80), (0xA0, 0x17F), (0x180, 0x530), (0x200B, 0x2028), (0x2030, 0x205F), (0x20A0, 0x20D0)),
    *((0x2100, 0x2C00), (0xFE00, 0xFE10), (0x1F000, 0x1FB00)),  # symbols: neither letters nor digits in any Unicode version
)
_OLD_RANGES = (  # of these, the characters whose class has not changed since Unicode 3.2
    *((0x530, 0x700), (0x750, 0x780), (0x900, 0xFD0), (0x1000, 0x1380), (0x1780, 0x1800), (0x2E80, 0xA000)),
    *((0xAC00, 0xD7A4), (0xF900, 0xFE00), (0xFE30, 0xFFF0)),
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"  # each digit alone
_PART = re.compile(r"\\p\{(L[ultmo]?|N[dlo]?|M[nce]?)\}|\\([sSrnt])|\\(.)|(\[\^?)|(\])|([^\\\[\]]+)", re.DOTALL)
_MAX_WORDS = 1 << 18
_MAX_WORD_CHARS = 32
_INT32 = [struct.Struct(f"={n}i").pack for n in range(8)]


@dataclass(frozen=True)
class Splitter:
    """Splits texts of known characters into the pieces that the tokenizer encodes one by one."""

    ascii: re.Pattern[str]
    known: re.Pattern[str]
    unknown: re.Pattern[str]  # finds a character for which `known` may split differently
    added: re.Pattern[str] | None  # finds a token that the tokenizer extracts before it splits the text
    needs_nfc: bool

    def split(self, text: str) -> list[str] | None:
        """The tokenizer's pieces, which join to `text`; None if they are not certain."""
        if self.added and self.added.search(text):
            return None
        if text.isascii():
            return self.ascii.findall(text)
        if self.unknown.search(text):
            return None
        if self.needs_nfc and not unicodedata.is_normalized("NFC", text):
            return None
        return self.known.findall(text)


class WordTable:
    """The ids of words seen before, about 2^18 at most. Its content never changes a result."""

    def __init__(self, tokenizer: Tokenizer, splitter: Splitter, token_bytes: list[bytes]) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._splitter = splitter
        self._ids: dict[str, bytes] = {}

    def encode(self, text: str) -> np.ndarray | None:
        """int32 [num_tokens], read-only, that decode to `text`; None if it has to go through the tokenizer."""
        words = self._splitter.split(text)
        if words is None:
            return None
        known = list(map(self._ids.get, words))
        try:
            joined = b"".join(known)  # type: ignore[arg-type]
        except TypeError:  # a word is seen for the first time
            new = [i for i, ids in enumerate(known) if ids is None]
            learned = self._learn({words[i] for i in new})
            if learned is None:
                return None
            for i in new:
                known[i] = self._ids[words[i]]
            joined = b"".join(known)  # type: ignore[arg-type]
            self._forget(learned)
        return np.frombuffer(joined, np.int32)

    def _learn(self, words: set[str]) -> list[str] | None:
        """Adds `words` to the table; None if one does not decode to itself."""
        new = list(words)
        encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        learned = {}
        for word, encoding in zip(new, encodings, strict=True):
            ids = encoding.ids
            if b"".join([self._token_bytes[i] for i in ids]) != word.encode():
                return None
            learned[word] = _INT32[len(ids)](*ids) if len(ids) < len(_INT32) else np.array(ids, np.int32).tobytes()
        self._ids.update(learned)
        return new

    def _forget(self, learned: list[str]) -> None:
        if len(self._ids) > _MAX_WORDS:
            self._ids = {}
            return
        for word in learned:
            if len(word) > _MAX_WORD_CHARS:
                del self._ids[word]


def find_splitter(settings: dict[str, Any]) -> Splitter | None:
    """The splitter for a tokenizer with these settings (its tokenizer.json); None if it cannot be translated."""
    normalizer = (settings.get("normalizer") or {}).get("type")
    model = settings.get("model") or {}
    if normalizer not in (None, "NFC") or model.get("type") != "BPE" or model.get("dropout"):
        return None
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    expression = _expression(settings.get("pre_tokenizer") or {})
    ascii_only, known = (_translated(expression, kind) if expression else None for kind in ("ascii", "known"))
    if not ascii_only or not known:
        return None
    added = sorted(re.escape(token["content"]) for token in settings.get("added_tokens", ()) if not token["special"])
    return Splitter(
        ascii=ascii_only,
        known=known,
        unknown=re.compile(f"[^{_ranges('', 'known')}]"),
        added=re.compile("|".join(added)) if added else None,
        needs_nfc=normalizer == "NFC",
    )


def _expression(pre_tokenizer: dict[str, Any]) -> str | None:
    """The expression that splits a text, for the three usual kinds of byte-level pre-tokenizers; None for others."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    *before, last = steps or [{}]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or len(before) > 1:
        return None
    if not before:
        return _GPT2 if last.get("use_regex", True) else None
    (split,) = before
    if split.get("type") == "Digits":
        return _GPT2_DIGITS if split.get("individual_digits") and last.get("use_regex", True) else None
    if split.get("type") != "Split" or split.get("behavior") != "Isolated" or split.get("invert"):
        return None
    expression = (split.get("pattern") or {}).get("Regex")
    return None if last.get("use_regex", True) else expression


def _translated(expression: str, kind: str) -> re.Pattern[str] | None:
    """`expression` with Unicode classes spelt out; None if it uses anything that could mean something else in `re`."""
    if re.search(r"\{[\d,]+\}\+|&&|\(\?(?![!:=i])|\[\[", expression):
        return None
    parts, in_class, position = [], False, 0
    for match in _PART.finditer(expression):
        if match.start() != position:
            return None
        position = match.end()
        category, escape, other, opening, closing, literal = match.groups()
        if category or escape == "s":
            ranges = _ranges(category or "space", kind)
            parts.append(ranges if in_class else f"[{ranges}]" if ranges else "(?!)")
        elif escape == "S":
            if in_class:
                return None
            parts.append(f"[^{_ranges('space', kind)}]")
        elif escape:
            parts.append(f"\\{escape}")
        elif other:
            if other.isalnum():
                return None
            parts.append(f"\\{other}")
        else:
            in_class = bool(opening) or (in_class and not closing)
            parts.append(opening or closing or literal)
    translated = re.sub(r"\[\]", "(?!)", "".join(parts))
    try:
        return re.compile(translated) if position == len(expression) and not re.compile(translated).groups else None
    except re.error:
        return None


@cache
def known_characters() -> tuple[int, ...]:
    """The characters whose class is the same in every Unicode version of Python and of tokenizers."""
    old, new = unicodedata.ucd_3_2_0.category, unicodedata.category
    stable = (i for low, high in _OLD_RANGES for i in range(low, high) if "Cn" != old(chr(i)) == new(chr(i)))
    return tuple(sorted({i for low, high in _KNOWN_RANGES for i in range(low, high)}.union(stable)))


@cache
def _ranges(category: str, kind: str) -> str:
    """Characters of a general category ("" for all), as the inside of a character class of `re`."""
    test: Callable[[str], bool] = (
        (lambda c: c in "\t\n\x0b\x0c\r \xa0" or unicodedata.category(c).startswith("Z"))
        if category == "space"
        else (lambda c: unicodedata.category(c).startswith(category) and unicodedata.category(c) != "Cn")
    )
    last = 0x80 if kind == "ascii" else sys.maxunicode
    codes = [i for i in known_characters() if i < last and test(chr(i))]
    starts = [i for n, i in enumerate(codes) if not n or codes[n - 1] != i - 1]
    ends = [i for n, i in enumerate(codes) if n + 1 == len(codes) or codes[n + 1] != i + 1]
    return "".join(f"\\U{a:08x}-\\U{b:08x}" if b > a else f"\\U{a:08x}" for a, b in zip(starts, ends, strict=True))
