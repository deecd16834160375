"""Cuts documents into chunks of at most `max_tokens` tokens.

A document that fits is one chunk. Otherwise the strategy decides:

fixed     windows of `max_tokens` tokens.
overlap   the same, each starting `overlap_fraction` of a window before the end of the one before it.
semantic  every chunk except the last ends at the strongest boundary in the last part of its budget; of equally strong ones, at
          the last. From strong to weak: section heading (a higher section before a lower one); block (paragraph, table, list,
          quotation, fence); line, table row or list item, where line ends mean something (see `tasks.chunk.lines`); sentence. If
          that part (1 - `min_fill` of the budget) has none, a part twice as long is searched, and so on. Only where the whole
          budget has none of these, a fence is cut between its lines, or a sentence after a clause, a word, a grapheme cluster, or,
          if that alone is over the budget, a token. In program text, definitions replace headings and all lines count.
          The last two chunks have at least a quarter of the budget each if that costs no sentence. A heading, the head of a table
          and a numbered title in capitals stay with what follows. At headings, blocks and lines, white space belongs to the
          earlier chunk; at weaker places, to the later one; but no token is ever split.
          With an embedding model, the chunk ends before the sentence, of those that start in the last half of the
          budget, that differs most from the text in front of it; headings and blocks in the last part still come first.

A chunk's ids are the slice of the document's ids (see `tasks.tokens.encoding`), so for a byte-level tokenizer they decode
to exactly the chunk's text. No cut falls inside a character that takes several tokens.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_schemas.params import ChunkingParams
from data_schemas.tables import TEXT_FORMATS
from tasks.chunk.cuts import SemanticCuts, last_within
from tasks.chunk.sentences import Segmenter, make_segmenter, segmenter_of_language
from tasks.chunk.similarity import TopicShift
from tasks.chunk.structure import Structure, find_structure
from tasks.tokens.encoding import EncodedText, Encoder

_OPENING_CHARS = 4096  # of a document that is one chunk: enough to see whether it opens with a heading

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

USUAL_OVERLAP = (0.10, 0.30)


@dataclass(frozen=True)
class Chunk:
    """`text[char_start:char_end]` of a document, its token ids without BOS and EOS, and the titles of the sections it
    starts in, outermost first."""

    char_start: int
    char_end: int
    token_ids: list[int]
    num_tokens: int
    heading_path: tuple[str, ...]


@dataclass(frozen=True)
class Spans:
    """Where a document is cut.

    rows   int32 [num_chunks, 4]: first character, end, first token, end
    paths  titles of the sections each chunk starts in
    """

    rows: np.ndarray
    paths: list[tuple[str, ...]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each chunk, int32 [num_chunks]."""
        return self.rows[:, 3] - self.rows[:, 2]

    def chunks(self, ids: np.ndarray) -> list[Chunk]:
        """The chunks of a document with these token ids."""
        return [
            Chunk(start, end, ids[first:last].tolist(), last - first, path)
            for (start, end, first, last), path in zip(self.rows.tolist(), self.paths, strict=True)
        ]


class Chunker:
    """Cuts texts into chunks; see the module's docstring for the rule.

    The same text gives the same chunks on any machine, alone or in a batch. Raises ValueError if `params.max_tokens` is not
    set, UserError if the sentence segmenter or the embedding model cannot be loaded.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast | Tokenizer, params: ChunkingParams) -> None:
        if params.max_tokens is None:
            raise ValueError("ChunkingParams.max_tokens is not set: give the budget of a chunk in tokens")
        if params.strategy == "overlap" and not USUAL_OVERLAP[0] <= params.overlap_fraction <= USUAL_OVERLAP[1]:
            warnings.warn(
                f"overlap_fraction {params.overlap_fraction} is outside {USUAL_OVERLAP[0]}-{USUAL_OVERLAP[1]}", stacklevel=2
            )
        self.params = params
        self.max_tokens = params.max_tokens
        self._encoder = Encoder(tokenizer)
        is_semantic = params.strategy == "semantic"
        self._segmenter = make_segmenter(params) if is_semantic else None
        self._segmenters: dict[str, Segmenter] = {}  # of documents in other languages
        self._shift = TopicShift(params.embedding_model) if is_semantic and params.embedding_model else None

    def chunk(self, text: str, format: str = "auto", language: str | None = None) -> list[Chunk]:
        """Chunks of `text` in order; none for an empty text. `format` is one of TEXT_FORMATS, or `auto` to guess it; `language`
        (ISO 639-1) chooses the rules of sentences, instead of `params.language`."""
        return [chunk for encoded in self._encoder.encode([text]) for chunk in self.cut(encoded, format, language)]

    def encode(self, texts: list[str]) -> Iterator[EncodedText]:
        """Tokens of many texts, encoded together; pass each to `cut`."""
        return self._encoder.encode(texts)

    def cut(self, encoded: EncodedText, format: str = "auto", language: str | None = None) -> list[Chunk]:
        """Chunks of an encoded text."""
        return self.spans(encoded, format, language).chunks(encoded.ids)

    def spans(self, encoded: EncodedText, format: str = "auto", language: str | None = None) -> Spans:
        """Where `cut` cuts. ValueError for a format that is not in TEXT_FORMATS."""
        if format != "auto" and format not in TEXT_FORMATS:
            raise ValueError(f"unknown format {format!r}: choose auto, {', '.join(TEXT_FORMATS)}")
        if not encoded.text:
            return Spans(np.empty((0, 4), np.int32), [])
        fits = len(encoded.ids) <= self.max_tokens
        structure = find_structure(encoded.text[:_OPENING_CHARS] if fits else encoded.text, format)
        cuts = [(0, len(encoded.cut_token) - 1)] if fits else list(self._cuts(encoded, structure, language))
        first, last = np.array(cuts, np.int64).T
        char, token = encoded.cut_char, encoded.cut_token
        rows = np.stack([char[first], char[last], token[first], token[last]], axis=1).astype(np.int32)
        return Spans(rows, _heading_paths(encoded.text, structure, rows))

    def _cuts(self, encoded: EncodedText, structure: Structure, language: str | None) -> Iterator[tuple[int, int]]:
        if segmenter := self._segmenter_for(language):
            return SemanticCuts(encoded, structure, segmenter, self.max_tokens, self.params.min_fill, self._shift).spans()
        shared = int(self.max_tokens * self.params.overlap_fraction) if self.params.strategy == "overlap" else 0
        return _windows(encoded, self.max_tokens, shared)

    def _segmenter_for(self, language: str | None) -> Segmenter | None:
        """The segmenter of a document's language; a trained pipeline decides for every language."""
        if not self._segmenter or not language or language == self.params.language or self.params.spacy_pipeline:
            return self._segmenter
        if language not in self._segmenters:
            self._segmenters[language] = segmenter_of_language(self.params, language)
        return self._segmenters[language]


def _heading_paths(text: str, structure: Structure, rows: np.ndarray) -> list[tuple[str, ...]]:
    if not structure.headings:
        return [()] * len(rows)
    heading_chars = [heading.char for heading in structure.headings]
    paths = [(), *structure.heading_paths()]
    return [paths[bisect_right(heading_chars, _first_visible(text, start, end))] for start, end in rows[:, :2].tolist()]


def _first_visible(text: str, start: int, end: int) -> int:
    return next((i for i in range(start, end) if not text[i].isspace()), start)


def _windows(encoded: EncodedText, max_tokens: int, shared: int) -> Iterator[tuple[int, int]]:
    """(first cut, last cut) of each window; a window shares `shared` tokens with the one before it, or fewer where a
    character is spread over tokens."""
    first, final = 0, len(encoded.cut_token) - 1
    while True:
        last = last_within(encoded, first, max_tokens)
        yield first, last
        if last == final:
            return
        wanted = int(np.searchsorted(encoded.cut_token, encoded.cut_token[last] - shared, side="left"))
        first = max(first + 1, wanted) if shared else last
