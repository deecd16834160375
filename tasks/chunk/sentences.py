"""Where sentences start: three segmenters with one small interface.

spacy         the rules of `sentence_rules`, with the abbreviations in spaCy's tokenizer of the language
fast          the same rules with Ropeway's own abbreviations, without spaCy
a pipeline    any trained spaCy pipeline, which decides alone
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import ChunkingParams
from tasks.chunk.languages import language_rules
from tasks.chunk.sentence_rules import Candidate, candidates, starts_sentence
from tasks.work import is_worker

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokenizer import Tokenizer

PIECE_CHARS = 50_000  # far below spaCy's limit of a million characters
_MAX_VOCABULARY = 300_000
_MAX_ABBREVIATION_CHARS = 24
_SENTENCE_PIPES = {"parser", "senter", "sentencizer"}
_PREFIX_CHARS = "\"'“”„‚‘’«»‹›([{<¿¡*_—–-"
_PREFIX = f"[{re.escape(_PREFIX_CHARS)}]"
_SUFFIX = r"""[.!?…,;:"'“”‘’«»‹›)\]}>*_—–-]"""


class Segmenter(Protocol):
    """Finds sentences in a paragraph."""

    def starts(self, text: str, low: int = 0, high: int | None = None) -> list[int]:
        """Positions in [low, high) of `text` of the first visible character of each sentence, in order, without the start
        of the text. Whether a position is found does not depend on `low` and `high`."""
        ...


def make_segmenter(params: ChunkingParams) -> Segmenter:
    """The segmenter that `params` select. UserError if its pipeline does not exist or spaCy does not know the language."""
    if params.spacy_pipeline:
        return PipelineSegmenter(_load_pipeline(params.spacy_pipeline))
    if params.segmenter == "fast":
        return FastSegmenter(params.language)
    return SpacySegmenter(params.language)


def segmenter_of_language(params: ChunkingParams, language: str) -> Segmenter:
    """The segmenter that `params` select, for a document's language. A language that spaCy does not know gets the rules that most
    languages share."""
    try:
        return make_segmenter(params.model_copy(update={"language": language}))
    except UserError:
        return FastSegmenter(language)


class _RuleSegmenter(ABC):
    """Decides for each place where a sentence might start, by the text close to it."""

    def __init__(self, language: str) -> None:
        self.rules = language_rules(language)

    def starts(self, text: str, low: int = 0, high: int | None = None) -> list[int]:
        """See Segmenter."""
        found = candidates(text, low, len(text) if high is None else high)
        known = self._abbreviated(text, [c for c in found if c.is_full_stop])
        return [c.start for c in found if starts_sentence(text, c, self.rules, c.end in known)]

    @abstractmethod
    def _abbreviated(self, text: str, full_stops: list[Candidate]) -> set[int]:
        """The ends of those full stops that belong to a word, as in "etc."."""


class FastSegmenter(_RuleSegmenter):
    """The rules, with the abbreviations of `tasks.chunk.languages`."""

    def _abbreviated(self, text: str, full_stops: list[Candidate]) -> set[int]:
        return set()  # the rules read those lists themselves


class SpacySegmenter(_RuleSegmenter):
    """The rules, with the abbreviations in spaCy's language data as well.

    The tokenizer is spaCy's with that language's exceptions, but splits words only where it matters for sentences, which is
    2.5 times as fast as the default. It only gets the words before full stops.
    """

    def __init__(self, language: str) -> None:
        super().__init__(language)
        exceptions = _exceptions_of(language)
        self._build = _tokenizer_of(exceptions)
        self._tokenizer = self._build()
        self._exceptions = frozenset(word for word in exceptions if word.endswith(".") and len(word) > 1)

    def _abbreviated(self, text: str, full_stops: list[Candidate]) -> set[int]:
        full_stops = [c for c in full_stops if self._may_be_abbreviated(text, c.end)]
        if not full_stops:
            return set()
        from spacy.attrs import LENGTH, SPACY

        if len(self._tokenizer.vocab) > _MAX_VOCABULARY:  # spaCy keeps every word it has seen
            self._tokenizer = self._build()
        start = _word_start(text, full_stops[0].stop)
        doc = self._tokenizer(text[start : full_stops[-1].gap])
        length, is_spaced = doc.to_array([LENGTH, SPACY]).astype(np.int64).T
        ends = np.cumsum(length + is_spaced) - is_spaced + start
        wanted = np.array([(c.stop, c.end) for c in full_stops], np.int64)
        token = np.minimum(np.searchsorted(ends, wanted[:, 1]), len(ends) - 1)
        is_abbreviation = (ends[token] == wanted[:, 1]) & (ends[token] - length[token] < wanted[:, 0])
        return set(wanted[is_abbreviation, 1].tolist())

    def _may_be_abbreviated(self, text: str, end: int) -> bool:
        """Whether spaCy's tokenizer could keep the word that ends at `end` with its full stop. Most words need not be asked for."""
        start = _word_start(text, end)
        while start < end - 1:
            if text[start:end] in self._exceptions:
                return True
            if text[start] not in _PREFIX_CHARS:
                return False
            start += 1
        return False


def _word_start(text: str, position: int) -> int:
    """Where the word at `position` starts; a word longer than any abbreviation is cut."""
    lowest = max(0, position - 2 * _MAX_ABBREVIATION_CHARS)
    while position > lowest and not text[position - 1].isspace():
        position -= 1
    return position


def _import_spacy() -> ModuleType:
    """spaCy for its language data. A worker skips torch, which spaCy imports for models: it saves a second and 200 MB."""
    keep_out = is_worker() and "torch" not in sys.modules
    if keep_out:
        sys.modules["torch"] = None  # type: ignore[assignment]  # makes its import fail
    try:
        import spacy
    finally:
        if keep_out:
            del sys.modules["torch"]
    return spacy


def _exceptions_of(language: str) -> dict[str, Any]:
    """The words of a language that spaCy treats as one, with their tokens. UserError if spaCy does not know it."""
    try:
        defaults = _import_spacy().util.get_lang_class(language).Defaults
    except ImportError as error:
        raise UserError(
            f"spaCy does not know chunking.language {language!r}: choose `xx` for any language, or chunking.segmenter fast."
        ) from error
    return {word: parts for word, parts in defaults.tokenizer_exceptions.items() if not any(c.isspace() for c in word)}


def _tokenizer_of(exceptions: dict[str, Any]) -> Callable[[], Tokenizer]:
    """Makes tokenizers with these exceptions."""
    from spacy.tokenizer import Tokenizer
    from spacy.vocab import Vocab

    prefix, suffix = re.compile(f"^{_PREFIX}").search, re.compile(f"{_SUFFIX}$").search
    return lambda: Tokenizer(Vocab(), rules=exceptions, prefix_search=prefix, suffix_search=suffix)


class PipelineSegmenter:
    """Sentences of a spaCy pipeline, in texts of any length.

    A long text goes through the pipeline in pieces. A piece's last sentence is read again at the start of the next piece, so
    that the end of a piece never ends a sentence.
    """

    def __init__(self, pipeline: Language) -> None:
        self._pipeline = pipeline
        self._last: tuple[str, list[int]] = ("", [])

    def starts(self, text: str, low: int = 0, high: int | None = None) -> list[int]:
        """See Segmenter. The whole text is read, once for consecutive calls with the same text."""
        if self._last[0] is not text:
            self._last = (text, self._find(text))
        end = len(text) if high is None else high
        found = self._last[1]
        return found[bisect_left(found, low) : bisect_left(found, end)]

    def _find(self, text: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(text):
            piece = text[start : start + PIECE_CHARS]
            with self._pipeline.memory_zone():  # forget the piece's words, spaCy would keep them
                in_piece = [start + sentence.start_char for sentence in self._pipeline(piece).sents]
            is_last = start + len(piece) == len(text)
            found.extend(in_piece[1:])
            start = in_piece[-1] if len(in_piece) > 1 and not is_last else start + len(piece)
        visible = [_first_visible(text, position) for position in found]
        return [p for n, p in enumerate(visible) if p < len(text) and (not n or p > visible[n - 1])]


def _first_visible(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _load_pipeline(name: str) -> Language:
    import spacy

    folder = Path(name).expanduser()
    is_package = spacy.util.is_package(name)
    if not is_package and not (folder / "config.cfg").is_file():
        raise UserError(
            f"chunking.spacy_pipeline {name!r} is neither an installed pipeline nor a pipeline's folder: install it (python -m spacy "
            f"download {name}), give the folder's path, or leave the field empty for the built-in rules."
        )
    try:
        pipeline = spacy.load(
            name if is_package else folder, exclude=["ner", "tagger", "attribute_ruler", "lemmatizer", "textcat"]
        )
    except (ValueError, ImportError, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"chunking.spacy_pipeline {name!r} cannot be loaded by this spaCy: {reason}; choose one made for it, or leave the field "
            "empty for the built-in rules."
        ) from error
    if not _SENTENCE_PIPES & set(pipeline.pipe_names):
        pipeline.add_pipe("sentencizer")
    return pipeline
