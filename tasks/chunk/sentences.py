"""Sentence starts by spaCy, in texts of any length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_schemas.errors import UserError
from data_schemas.params import ChunkingParams

if TYPE_CHECKING:
    from spacy.language import Language

PIECE_CHARS = 50_000  # far below spaCy's limit of a million characters
_SENTENCE_PIPES = {"parser", "senter", "sentencizer"}


class SentenceFinder:
    """Finds sentences with a blank pipeline and a rule-based sentencizer, or with an installed pipeline."""

    def __init__(self, params: ChunkingParams) -> None:
        self._params = params
        self._pipeline: Language | None = None

    def load(self) -> Language:
        """The spaCy pipeline, loaded once. UserError if it is not installed, or the language is unknown."""
        if self._pipeline is None:
            self._pipeline = _installed(self._params.spacy_pipeline) if self._params.spacy_pipeline else self._blank()
            if not _SENTENCE_PIPES & set(self._pipeline.pipe_names):
                self._pipeline.add_pipe("sentencizer")
        return self._pipeline

    def _blank(self) -> Language:
        import spacy

        try:
            return spacy.blank(self._params.language)
        except ImportError as error:
            raise UserError(
                f"spaCy cannot make a pipeline for chunking.language {self._params.language!r}: install what that language "
                "needs, take `xx` for any language, or choose chunking.strategy fixed."
            ) from error

    def starts(self, text: str) -> list[int]:
        """Character positions where a sentence starts, white space in front of it not counted; the first is left out.

        A long text goes through the pipeline in pieces; a piece's last sentence is looked at again at the start of the
        next piece, so that no sentence ends where a piece does.
        """
        pipeline = self.load()
        found: list[int] = []
        start = 0
        while start < len(text):
            piece = text[start : start + PIECE_CHARS]
            in_piece = [start + sentence.start_char for sentence in pipeline(piece).sents]
            is_last = start + len(piece) == len(text)
            found.extend(in_piece[1:])
            start = in_piece[-1] if len(in_piece) > 1 and not is_last else start + len(piece)
        return [position for position in map(lambda p: _skip_white_space(text, p), found) if position < len(text)]


def _skip_white_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _installed(name: str) -> Language:
    import spacy

    if not spacy.util.is_package(name):
        raise UserError(
            f"chunking.spacy_pipeline {name!r} is not installed: install it (python -m spacy download {name}), or leave the "
            "field empty for the built-in sentencizer."
        )
    return spacy.load(name, exclude=["ner", "tagger", "attribute_ruler", "lemmatizer", "textcat"])
