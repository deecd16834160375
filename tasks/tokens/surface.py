"""The characters that token ids stand for, in the middle of a text too.

A tokenizer's own `decode` drops the space in front of the first word and may tidy up others. Here every id has its own bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPACE = "\u2581"  # SentencePiece's sign for a space
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_UNKNOWN = "\ufffd".encode()


class Surface:
    """Text of ids. Other kinds than byte-level and SentencePiece's use the tokenizer's `decode`."""

    def __init__(self, settings: Mapping[str, Any], tokenizer: Tokenizer, byte_level: list[bytes] | None) -> None:
        self._tokenizer = tokenizer
        self._bytes = byte_level or _sentencepiece_vocabulary(settings, tokenizer)

    def text(self, ids: np.ndarray) -> str:
        """Bytes that are no whole character are dropped."""
        if self._bytes is None:
            return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))
        return b"".join(map(self._bytes.__getitem__, ids.tolist())).decode("utf-8", "ignore")


def is_control(settings: Mapping[str, Any], tokenizer: Tokenizer) -> np.ndarray:
    """Which ids are special tokens, bool [ids], but not that of unknown characters, which a text can get."""
    model = settings.get("model") or {}
    special = {token["id"]: token["content"] for token in settings.get("added_tokens", ()) if token["special"]}
    if model.get("unk_id") is not None:
        special.pop(model["unk_id"], None)
    found = np.zeros(1 + max([*tokenizer.get_vocab().values(), *special], default=0), bool)
    found[[i for i, token in special.items() if token != model.get("unk_token")]] = True
    return found


def byte_level_vocabulary(settings: Mapping[str, Any], tokenizer: Tokenizer) -> list[bytes] | None:
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


def _sentencepiece_vocabulary(settings: Mapping[str, Any], tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of each token id; None where spaces are not written as U+2581."""
    vocabulary = tokenizer.get_vocab()
    if not any(token.startswith(_SPACE) for token in vocabulary):
        return None
    model = settings.get("model") or {}
    unknown = model.get("unk_id", vocabulary.get(model.get("unk_token") or ""))
    added = {t["id"]: t["content"].encode() for t in settings.get("added_tokens", ())}
    table = [b""] * (max(*vocabulary.values(), *added) + 1)
    for token, i in vocabulary.items():
        if i == unknown:
            table[i] = _UNKNOWN
        elif model.get("byte_fallback") and (byte := _BYTE.fullmatch(token)):
            table[i] = bytes([int(byte[1], 16)])
        else:
            table[i] = token.replace(_SPACE, " ").encode()
    for i, content in added.items():
        table[i] = _UNKNOWN if i == unknown else content
    return table
