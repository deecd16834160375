"""Texts whose lines have been seen before, such as the prompts of one haystack.

Byte-level tokenizers that split texts into words also split them where a line begins with a visible character, so each line is encoded
once. Other texts are encoded as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from tasks.tokens.encoding import EncodedText, Encoder, encoder_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_LINE_START = re.compile(r"(?<=\n)(?=\S)")
_MAX_CHARS = 1 << 22


class LineTable:
    """The encoded lines of texts. Its content never changes a result."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lines: dict[str, EncodedText] = {}
        self._num_chars = 0

    def encode(self, text: str, chars: Sequence[int], *, is_start: bool) -> tuple[np.ndarray, list[int]]:
        """The ids of `text`, int32, and the token that holds each of its characters `chars`, which ascend."""
        lines = self._encoded(text) if self._encoder.knows_words else list(self._encoder.encode([text], is_start=is_start))
        ends = np.cumsum([len(line.text) for line in lines])
        firsts = np.cumsum([0, *(len(line.ids) for line in lines)])
        places = []
        for char in chars:
            i = min(int(np.searchsorted(ends, char, side="right")), len(lines) - 1)
            line, inside = lines[i], char - int(ends[i]) + len(lines[i].text)
            cut = int(np.searchsorted(line.cut_char, inside, side="right")) - 1
            places.append(int(firsts[i] + line.cut_token[cut]))
        return np.concatenate([line.ids for line in lines]), places

    def _encoded(self, text: str) -> list[EncodedText]:
        lines = _LINE_START.split(text)
        if new := [line for line in dict.fromkeys(lines) if line not in self._lines]:
            if self._num_chars > _MAX_CHARS:
                self._lines, self._num_chars, new = {}, 0, list(dict.fromkeys(lines))
            self._lines.update(zip(new, self._encoder.encode(new), strict=True))
            self._num_chars += sum(map(len, new))
        return [self._lines[line] for line in lines]


@lru_cache(maxsize=4)
def line_table_of(tokenizer: PreTrainedTokenizerFast) -> LineTable:
    return LineTable(encoder_of(tokenizer))
