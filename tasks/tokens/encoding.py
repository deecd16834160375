"""Text as tokens, the same in training and evaluation, and the places between tokens where a text can be cut.

Text is always encoded as text: a literal `</s>` or `<|endoftext|>` in it never becomes a control token.

Texts are encoded once, in segments of about 64k characters. A segment ends before a line (or a word), where common
pre-tokenizers split anyway. The segments of many documents go through the tokenizer together. So the cost is linear and
memory is bounded. Only the first segment gets the space that some tokenizers put in front of a text.

For byte-level tokenizers the position of every token follows from its bytes, which is exact even if a character is spread
over several tokens. Each segment is checked to decode to its own text. For other tokenizers, and for a segment that a
normalizer changed, the positions are the tokenizer's own offsets. Segments of a byte-level BPE are encoded by words if that
gives the same ids (see `tasks.tokens.words`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.tokens.surface import Surface, byte_level_vocabulary, is_control
from tasks.tokens.text_start import without_prefix
from tasks.tokens.words import WordTable, find_splitter

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
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
    """Encodes texts without special tokens. Literal special tokens in a text, such as `</s>`, are encoded as plain text.

    `is_control`, bool [ids]: the special tokens, which no text gets.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast | Tokenizer) -> None:
        self._given: Tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
        settings = json.loads(self._given.to_str())
        self._tokenizer = _of_plain_text(settings)  # a copy, so that the caller's tokenizer keeps its settings
        inner = without_prefix(settings)
        self._inner = _of_plain_text(inner) if inner != settings else self._tokenizer
        self._token_bytes = byte_level_vocabulary(settings, self._tokenizer)
        self._token_lengths = np.array([len(piece) for piece in self._token_bytes or ()], np.int64)
        self.is_control = is_control(settings, self._tokenizer)
        self._surface = Surface(settings, self._tokenizer, self._token_bytes)
        self._begins_anew: dict[int, bool] = {}
        splitter = find_splitter(settings)
        self._words: WordTable | None = None
        if self._token_bytes and splitter:
            self._words = WordTable(self._tokenizer, splitter, self._token_bytes)

    @property
    def knows_words(self) -> bool:
        """Whether the tokenizer encodes texts word by word, in a way that `tasks.tokens.words` knows."""
        return self._words is not None

    def text(self, ids: np.ndarray) -> str:
        """The characters that `ids` int32 [num_tokens] stand for, also in the middle of a text; parts of characters are dropped."""
        return self._surface.text(ids)

    @property
    def puts_space(self) -> bool:
        """Whether the tokenizer puts a space in front of a text."""
        return self._inner is not self._tokenizer

    def begins_anew(self, control: int) -> bool:
        """Whether the tokenizer puts its space in front of text behind this control token too, as in front of a whole text."""
        if not self.puts_space:
            return False
        if control not in self._begins_anew:
            start, inner = (one.encode("a", add_special_tokens=False).ids for one in (self._tokenizer, self._inner))
            behind = self._given.encode(f"{self._given.id_to_token(control)}a", add_special_tokens=False).ids
            behind = behind[behind.index(control) + 1 :] if control in behind else []
            self._begins_anew[control] = behind[: len(start)] == start != inner
        return self._begins_anew[control]

    def encode_short(self, texts: list[str], *, is_start: bool = False) -> list[Encoding]:
        """Many short texts at once, in the tokenizer's own form; as each continues another text, unless `is_start`."""
        encodings: list[Encoding] = (self._tokenizer if is_start else self._inner).encode_batch(texts, add_special_tokens=False)
        return encodings

    def encode(self, texts: Sequence[str], *, is_start: bool = True) -> Iterator[EncodedText]:
        """EncodedText of each text, in order; texts are encoded about 4 million characters at a time.

        Without `is_start` they continue another text, so no tokenizer puts a space in front of them.
        """
        first, num_chars = 0, 0
        for end, text in enumerate(texts, 1):
            num_chars += len(text)
            if num_chars >= _BATCH_CHARS or end == len(texts):
                yield from self._encode_together(texts[first:end], is_start)
                first, num_chars = end, 0

    def _encode_together(self, texts: Sequence[str], is_start: bool) -> Iterator[EncodedText]:
        segments = [list(_segments(text)) for text in texts]
        by_words = [[self._by_words(segment) for segment in of_text] for of_text in segments]
        openings: list[str] = []
        others: list[str] = []
        for of_text, done in zip(segments, by_words, strict=True):
            for number, (segment, found) in enumerate(zip(of_text, done, strict=True)):
                if not found:
                    (openings if is_start and number == 0 else others).append(segment)
        encoded = iter(self._encode_all(self._tokenizer, openings)), iter(self._encode_all(self._inner, others))
        for text, of_text, done in zip(texts, segments, by_words, strict=True):
            located = []
            for number, (segment, found) in enumerate(zip(of_text, done, strict=True)):
                opens = is_start and number == 0
                located.append(found or self._located(segment, next(encoded[0 if opens else 1]), opens))
            yield _joined(text, located)

    def _encode_all(self, tokenizer: Tokenizer, segments: list[str]) -> list[Any]:
        if not segments:
            return []
        encode = tokenizer.encode_batch_fast if self._token_bytes else tokenizer.encode_batch
        encodings: list[Any] = encode(segments, add_special_tokens=False)
        return encodings

    def _by_words(self, segment: str) -> EncodedText | None:
        """`segment` encoded by words; None if that could give other ids than the tokenizer, or another text."""
        ids = self._words.encode(segment) if self._words else None
        if ids is None:
            return None
        byte_end = np.cumsum(self._token_lengths[ids])
        utf8 = segment.encode()
        whole = (int(byte_end[-1]) if len(ids) else 0) == len(utf8)
        return EncodedText(segment, ids, *_cuts_from_bytes(utf8, byte_end)) if whole else None

    def _located(self, segment: str, encoding: Any, opens: bool) -> EncodedText:
        """`segment` with its cuts; `encoding` lacks offsets where the tokenizer is byte-level."""
        if self._token_bytes:
            ids = np.array(encoding.ids, np.int32)
            utf8 = segment.encode()
            if b"".join([self._token_bytes[i] for i in encoding.ids]) == utf8:
                return EncodedText(segment, ids, *_cuts_from_bytes(utf8, np.cumsum(self._token_lengths[ids])))
            encoding = (self._tokenizer if opens else self._inner).encode(segment, add_special_tokens=False)
        ids = np.array(encoding.ids, np.int32)
        return EncodedText(segment, ids, *_cuts_from_offsets(len(segment), encoding.offsets))


@lru_cache(maxsize=4)
def encoder_of(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """The encoder of a tokenizer, made once: it remembers the words that it has seen."""
    return Encoder(tokenizer)


def _of_plain_text(settings: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(_without_special_pieces(settings)))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _without_special_pieces(settings: dict[str, Any]) -> dict[str, Any]:
    """A Unigram model finds every piece of its vocabulary in a text, so its special ones get names that no text has."""
    model = settings["model"]
    if model["type"] != "Unigram":
        return settings
    special = {token["content"]: token["id"] for token in settings["added_tokens"] if token["special"]}
    vocab = [[f"\0{special[piece]}\0" if piece in special else piece, score] for piece, score in model["vocab"]]
    added = [token for token in settings["added_tokens"] if not token["special"]]
    return settings | {"model": model | {"vocab": vocab}, "added_tokens": added, "post_processor": None}


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
