"""A document's tokens, and the places between tokens where its text can be cut.

Texts are encoded once, in segments of about 64k characters. A segment ends before a line (or a word), where common
pre-tokenizers split anyway. The segments of many documents go through the tokenizer together. So the cost is linear and
memory is bounded. A document shorter than a segment has exactly the ids of encoding it whole.

For byte-level tokenizers the position of every token follows from its bytes, which is exact even if a character is spread
over several tokens. Each segment is checked to decode to its own text. For other tokenizers, and for a segment that a
normalizer changed, the positions are the tokenizer's own offsets. Segments of a byte-level BPE are encoded by words if that
gives the same ids (see `tasks.chunk.words`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.chunk.words import WordTable, find_splitter

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SEGMENT_CHARS = 1 << 16
_BATCH_CHARS = 1 << 22


@dataclass(frozen=True)
class EncodedText:
    """Tokens of a text, and its cuts.

    ids        int32 [num_tokens]
    cut_token  int64 [num_cuts]: the cut is before this token; from 0 to num_tokens, increasing
    cut_char   int64 [num_cuts]: the cut is before this character; from 0 to len(text), increasing
    """

    text: str
    ids: np.ndarray
    cut_token: np.ndarray
    cut_char: np.ndarray


class Encoder:
    """Encodes texts without special tokens. Literal special tokens in a text, such as `</s>`, are encoded as plain text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast | Tokenizer) -> None:
        from tokenizers import Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        serialized = backend.to_str()
        self._tokenizer = Tokenizer.from_str(serialized)  # a copy, so that the caller's tokenizer keeps its settings
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        settings = json.loads(serialized)
        self._token_bytes = _byte_level_vocabulary(settings, self._tokenizer)
        self._token_lengths = np.array([len(piece) for piece in self._token_bytes or ()], np.int64)
        splitter = find_splitter(settings)
        self._words: WordTable | None = None
        if self._token_bytes and splitter:
            self._words = WordTable(self._tokenizer, splitter, self._token_bytes)

    def encode(self, texts: Sequence[str]) -> Iterator[EncodedText]:
        """EncodedText of each text, in order; texts are encoded about 4 million characters at a time."""
        first, num_chars = 0, 0
        for end, text in enumerate(texts, 1):
            num_chars += len(text)
            if num_chars >= _BATCH_CHARS or end == len(texts):
                yield from self._encode_together(texts[first:end])
                first, num_chars = end, 0

    def _encode_together(self, texts: Sequence[str]) -> Iterator[EncodedText]:
        segments = [list(_segments(text)) for text in texts]
        by_words = [[self._by_words(segment) for segment in of_text] for of_text in segments]
        others = [
            s for of_text, done in zip(segments, by_words, strict=True) for s, d in zip(of_text, done, strict=True) if not d
        ]
        encode = self._tokenizer.encode_batch_fast if self._token_bytes else self._tokenizer.encode_batch
        encodings = iter(encode(others, add_special_tokens=False))
        for text, of_text, done in zip(texts, segments, by_words, strict=True):
            located = [d or self._located(s, next(encodings)) for s, d in zip(of_text, done, strict=True)]
            yield _joined(text, located)

    def _by_words(self, segment: str) -> EncodedText | None:
        """`segment` encoded by words; None if that could give other ids than the tokenizer, or another text."""
        ids = self._words.encode(segment) if self._words else None
        if ids is None:
            return None
        byte_end = np.cumsum(self._token_lengths[ids])
        utf8 = segment.encode()
        whole = (int(byte_end[-1]) if len(ids) else 0) == len(utf8)
        return EncodedText(segment, ids, *_cuts_from_bytes(utf8, byte_end)) if whole else None

    def _located(self, segment: str, encoding: Any) -> EncodedText:
        """`segment` with its cuts; `encoding` lacks offsets where the tokenizer is byte-level."""
        if self._token_bytes:
            ids = np.array(encoding.ids, np.int32)
            utf8 = segment.encode()
            if b"".join([self._token_bytes[i] for i in encoding.ids]) == utf8:
                return EncodedText(segment, ids, *_cuts_from_bytes(utf8, np.cumsum(self._token_lengths[ids])))
            encoding = self._tokenizer.encode(segment, add_special_tokens=False)
        ids = np.array(encoding.ids, np.int32)
        return EncodedText(segment, ids, *_cuts_from_offsets(len(segment), encoding.offsets))


def _segments(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > SEGMENT_CHARS:
        end = _quiet_place(text, start + SEGMENT_CHARS // 2, start + SEGMENT_CHARS)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _quiet_place(text: str, low: int, high: int) -> int:
    """The last place in (low, high] where a line starts with a visible character, else a word, else `high`."""
    for i in range(high, low, -1):
        if text[i - 1] == "\n" and not text[i].isspace():
            return i
    for i in range(high, low, -1):
        if text[i] == " " and not text[i - 1].isspace():
            return i
    return high


def _joined(text: str, segments: list[EncodedText]) -> EncodedText:
    if len(segments) == 1:
        return segments[0]
    ids = np.concatenate([np.empty(0, np.int32), *(s.ids for s in segments)])
    cut_token, cut_char = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
    num_tokens = num_chars = 0
    for segment in segments:
        cut_token.append(segment.cut_token[1:] + num_tokens)
        cut_char.append(segment.cut_char[1:] + num_chars)
        num_tokens += len(segment.ids)
        num_chars += len(segment.text)
    return EncodedText(text, ids, np.concatenate(cut_token), np.concatenate(cut_char))


def _cuts_from_bytes(utf8: bytes, byte_end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boundaries between tokens that are also boundaries between characters; byte_end int64 [num_tokens]."""
    if len(utf8) and utf8.isascii() and np.all(byte_end[1:] > byte_end[:-1]) and byte_end[0]:
        return np.arange(len(byte_end) + 1), np.concatenate([[0], byte_end])
    starts_char = (np.frombuffer(utf8, np.uint8) & 0xC0) != 0x80
    num_chars_before = np.concatenate([[0], np.cumsum(starts_char)])
    is_cut = np.append(starts_char, True)[byte_end]
    is_cut[:-1] &= byte_end[1:] > byte_end[:-1]  # of tokens without bytes, cut after the last
    cut_token = np.flatnonzero(is_cut) + 1
    return np.append(0, cut_token), np.append(0, num_chars_before[byte_end[is_cut]])


def _cuts_from_offsets(num_chars: int, offsets: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Boundaries that no token crosses. Text without a token belongs to the token before it."""
    spans = np.array(offsets, np.int64).reshape(-1, 2)
    if not len(spans):
        return np.array([0, 0]), np.array([0, num_chars])
    before, after = np.maximum.accumulate(spans[:-1, 1]), np.minimum.accumulate(spans[::-1, 0])[::-1][1:]
    token = np.flatnonzero((before <= after) & (after > 0) & (after < num_chars)) + 1
    char = after[token - 1]
    last_of_equal = np.append(char[1:] > char[:-1], True)[: len(char)]
    token, char = token[last_of_equal], char[last_of_equal]
    return np.concatenate([[0], token, [len(spans)]]), np.concatenate([[0], char, [num_chars]])


def _byte_level_vocabulary(settings: dict[str, Any], tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of each token id; None if the tokenizer is not byte-level."""
    decoder = settings.get("decoder") or {}
    kinds = {decoder.get("type")} | {d.get("type") for d in decoder.get("decoders", ())}
    if "ByteLevel" not in kinds:
        return None
    byte_of = _byte_of_symbol()
    added = {t["id"]: t["content"].encode() for t in settings.get("added_tokens", ())}
    table = [b""] * (max(tokenizer.get_vocab().values(), default=-1) + 1)
    for token, i in tokenizer.get_vocab().items():
        is_plain = i in added or any(symbol not in byte_of for symbol in token)
        table[i] = added.get(i, token.encode()) if is_plain else bytes(byte_of[symbol] for symbol in token)
    return table


def _byte_of_symbol() -> dict[str, int]:
    """GPT-2's printable symbol for each byte, inverted: printable Latin-1 stands for itself, the rest for U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
