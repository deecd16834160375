"""A document as it goes on, or the reason why it does not."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise

from data_schemas.params import CorpusParams, CorpusSource, QualityParams
from tasks.ingest.quality.measures import repeated_share, symbol_share
from tasks.ingest.quality.personal_data import replaced
from tasks.ingest.reading.language_detection import UNDETERMINED, identify
from tasks.ingest.reading.records import Document, Refused, Skipped
from tasks.ngrams.word_ngrams import num_words_of

_CODE_FORMATS = ("python", "code")  # in no natural language
_MIN_RECORDED = 0.5  # probability of a language that is recorded; a less likely one is as good as unknown


def finished(document: Document, source: CorpusSource, params: CorpusParams, max_bytes: int) -> Document | Refused | Skipped:
    """The document with its language and without personal data; a Refused if it is too long, a Skipped if it is left out.

    Reason codes of a Skipped: short, language, unclear_language, few_words, repetition, symbols.
    """
    num_bytes = len(document.utf8)
    if num_bytes > max_bytes:
        detail = f"{num_bytes:,} bytes, more than {max_bytes:,}"
        return Refused(document.source_uri, document.record, "too_large", detail)
    reason = "short" if num_bytes < source.min_bytes else None
    language = None
    if not reason and document.format not in _CODE_FORMATS:
        language, reason = _language(document, source, params)
    if reason := reason or _fault(document, params.quality):
        return Skipped(document.source_uri, document.record, reason, num_bytes)
    cleaned = _without_personal_data(document, params.replace_personal_data)
    return cleaned if language == cleaned.language else dataclasses.replace(cleaned, language=language)


def _without_personal_data(document: Document, kinds: Sequence[str]) -> Document:
    """The document with its text replaced; of a conversation each piece between the borders of its messages and context."""
    borders = sorted(
        {0, len(document.text), *(document.context or ()), *(at for t in document.turns for at in (t.start, t.end))}
    )
    pieces = [replaced(document.text[start:end], kinds) for start, end in pairwise(borders)]
    if not any(changes for _, changes in pieces):
        return document
    counts: Counter[str] = Counter()
    for _, changes in pieces:
        counts.update(dict(changes))
    ends = accumulate((len(text) for text, _ in pieces), initial=0)
    moved = dict(zip(borders, ends, strict=True))
    return dataclasses.replace(
        document,
        text="".join(text for text, _ in pieces),
        changes=(*document.changes, *counts.items()),
        turns=tuple(dataclasses.replace(turn, start=moved[turn.start], end=moved[turn.end]) for turn in document.turns),
        context=document.context and (moved[document.context[0]], moved[document.context[1]]),
    )


def _language(document: Document, source: CorpusSource, params: CorpusParams) -> tuple[str | None, str | None]:
    """(language: as the source or the document states it, else as detected; reason to leave the document out)."""
    min_confidence = params.quality.min_language_confidence
    language = source.language or document.language
    if language is None and not (params.detect_language or params.languages or min_confidence):
        return None, None
    if language is None:
        guess, confidence = identify(document.text, also=params.languages)
        if min_confidence and confidence < min_confidence:
            return None, "unclear_language"
        language = guess if confidence >= _MIN_RECORDED else UNDETERMINED
    else:
        guess = language
    return language, "language" if params.languages and guess not in params.languages else None


def _fault(document: Document, limits: QualityParams) -> str | None:
    """The first limit that the text does not keep, the cheapest first."""
    if limits.min_words and num_words_of(document.text) < limits.min_words:
        return "few_words"
    if document.format in _CODE_FORMATS:
        return None
    if limits.max_symbols and symbol_share(document.text) > limits.max_symbols:
        return "symbols"
    if limits.max_repetition and repeated_share(document.text) > limits.max_repetition:
        return "repetition"
    return None
