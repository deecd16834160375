"""Documents into chunks of at most `max_tokens` tokens.

A document that fits is one chunk. Otherwise, in the strategies:

fixed     windows of `max_tokens` tokens.
overlap   the same, each starting `overlap_fraction` of a window before the end of the one before it.
semantic  every chunk but the last ends at the strongest boundary within its budget, and of equally strong ones at the
          last: section heading (a higher section before a lower one), paragraph, sentence; a token boundary only where
          none of these is in reach, that is inside one sentence that is over the budget. A heading stays with the
          paragraph under it. White space at a boundary ends the earlier chunk at headings and paragraphs and leads the
          later one at sentences, as far as the tokens allow: no token is ever split.

A chunk's ids are the slice of the document's ids (see `tasks.chunk.encoding`), so for a byte-level tokenizer they decode
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
from tasks.chunk.encoding import EncodedText, Encoder
from tasks.chunk.sentences import SentenceFinder
from tasks.chunk.structure import SENTENCE, Boundary, Structure, find_structure

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


class Chunker:
    """Cuts texts into chunks; see the module's docstring for the rule.

    The same text gives the same chunks on any machine, alone or among others. Raises ValueError where
    `params.max_tokens` is not set, UserError where the spaCy pipeline is missing.
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
        self._sentences = SentenceFinder(params)
        if params.strategy == "semantic" and params.spacy_pipeline:
            self._sentences.load()  # refuse a missing pipeline before any work is done

    def chunk(self, text: str) -> list[Chunk]:
        """Chunks of `text` in order; none for an empty text."""
        return [chunk for encoded in self._encoder.encode([text]) for chunk in self.cut(encoded)]

    def encode(self, texts: list[str]) -> Iterator[EncodedText]:
        """Tokens of many texts, encoded together; pass each to `cut`."""
        return self._encoder.encode(texts)

    def cut(self, encoded: EncodedText) -> list[Chunk]:
        """Chunks of an encoded text."""
        if not encoded.text:
            return []
        structure = find_structure(encoded.text)
        fits = len(encoded.ids) <= self.max_tokens
        if fits:
            spans = [(0, len(encoded.cut_token) - 1)]
        elif self.params.strategy == "semantic":
            spans = list(_SemanticCuts(encoded, structure, self._sentences, self.max_tokens).spans())
        else:
            shared = int(self.max_tokens * self.params.overlap_fraction) if self.params.strategy == "overlap" else 0
            spans = list(_windows(encoded, self.max_tokens, shared))
        return _chunks(encoded, structure, spans)


def _chunks(encoded: EncodedText, structure: Structure, spans: list[tuple[int, int]]) -> list[Chunk]:
    heading_chars = [heading.char for heading in structure.headings]
    paths = structure.heading_paths()
    chunks = []
    for first, last in spans:
        start, end = int(encoded.cut_char[first]), int(encoded.cut_char[last])
        ids = encoded.ids[encoded.cut_token[first] : encoded.cut_token[last]].tolist()
        num_headings = bisect_right(heading_chars, _first_visible(encoded.text, start, end))
        chunks.append(Chunk(start, end, ids, len(ids), paths[num_headings - 1] if num_headings else ()))
    return chunks


def _first_visible(text: str, start: int, end: int) -> int:
    return next((i for i in range(start, end) if not text[i].isspace()), start)


def _last_within(encoded: EncodedText, first: int, max_tokens: int) -> int:
    """Index of the last cut at most `max_tokens` tokens behind cut number `first`."""
    last = int(np.searchsorted(encoded.cut_token, encoded.cut_token[first] + max_tokens, side="right")) - 1
    if last <= first:
        position = int(encoded.cut_char[first])
        raise ValueError(f"the character at {position} takes more than {max_tokens} tokens: raise max_tokens")
    return last


def _windows(encoded: EncodedText, max_tokens: int, shared: int) -> Iterator[tuple[int, int]]:
    """(first cut, last cut) of each window; a window shares `shared` tokens with the one before it, or fewer where a
    character is spread over tokens."""
    first, final = 0, len(encoded.cut_token) - 1
    while True:
        last = _last_within(encoded, first, max_tokens)
        yield first, last
        if last == final:
            return
        wanted = int(np.searchsorted(encoded.cut_token, encoded.cut_token[last] - shared, side="left"))
        first = max(first + 1, wanted) if shared else last


class _SemanticCuts:
    """Chooses the cuts of one document. Sentences are looked for only in paragraphs that have to be cut."""

    def __init__(self, encoded: EncodedText, structure: Structure, sentences: SentenceFinder, max_tokens: int) -> None:
        self._encoded = encoded
        self._sentences = sentences
        self._max_tokens = max_tokens
        cuts, levels = self._cuts_at(structure.boundaries)
        self._cuts, self._levels = cuts, levels
        self._paragraph_cuts = np.concatenate([[0], cuts, [len(encoded.cut_token) - 1]])
        self._sentence_cuts = np.empty(0, np.int64)
        self._sentences_of = (-1, -1)  # the paragraph, as (first cut, last cut), that `_sentence_cuts` belong to

    def spans(self) -> Iterator[tuple[int, int]]:
        first, final = 0, len(self._encoded.cut_token) - 1
        while first < final:
            last = _last_within(self._encoded, first, self._max_tokens)
            if last < final:
                last = self._strongest(first, last) or self._last_sentence(first, last) or last
            yield first, last
            first = last

    def _strongest(self, first: int, last: int) -> int | None:
        """Last of the strongest headings and paragraphs in (first, last]."""
        low, high = np.searchsorted(self._cuts, [first, last], side="right")
        if low == high:
            return None
        levels = self._levels[low:high]
        return int(self._cuts[high - 1 - np.argmin(levels[::-1])])

    def _last_sentence(self, first: int, last: int) -> int | None:
        """Last sentence boundary in (first, last], which lies inside one paragraph."""
        i = int(np.searchsorted(self._paragraph_cuts, first, side="right"))
        paragraph = (int(self._paragraph_cuts[i - 1]), int(self._paragraph_cuts[i]))
        if paragraph != self._sentences_of:
            self._sentence_cuts = self._find_sentences(*paragraph)
            self._sentences_of = paragraph
        low, high = np.searchsorted(self._sentence_cuts, [first, last], side="right")
        return int(self._sentence_cuts[high - 1]) if high > low else None

    def _find_sentences(self, first: int, last: int) -> np.ndarray:
        start, end = int(self._encoded.cut_char[first]), int(self._encoded.cut_char[last])
        paragraph = self._encoded.text[start:end]
        boundaries = []
        for position in self._sentences.starts(paragraph):
            low = position
            while low > 0 and paragraph[low - 1].isspace():
                low -= 1
            if low > 0:
                boundaries.append(Boundary(start + low, start + low, start + position, SENTENCE))
        return self._cuts_at(tuple(boundaries))[0]

    def _cuts_at(self, boundaries: tuple[Boundary, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(number of the cut, level) of each boundary that a cut can be made at."""
        low, best, high = np.array([(b.low, b.best, b.high) for b in boundaries], np.int64).reshape(-1, 3).T
        chars = self._encoded.cut_char
        before = np.searchsorted(chars, best, side="right") - 1
        after = np.minimum(before + 1, len(chars) - 1)
        cuts = np.where(chars[before] >= low, before, after)
        can_be_cut = (chars[cuts] >= low) & (chars[cuts] <= high)
        levels = np.array([b.level for b in boundaries], np.int64)
        return cuts[can_be_cut], levels[can_be_cut]
