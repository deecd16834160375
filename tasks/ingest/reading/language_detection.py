"""The natural language of a text (py3langid, a naive Bayes model over byte n-grams; Lui and Baldwin 2012)."""

from collections.abc import Collection
from functools import cache
from typing import Any

from data_schemas.errors import UserError

UNDETERMINED = "und"  # ISO 639-2
_PIECE_CHARS = 120  # 0.2 ms for three; the cost grows faster than the length


def identify(text: str, also: tuple[str, ...] = ()) -> tuple[str, float]:
    """(language, probability) from the start, the middle and the end of `text`.

    The language is an ISO 639-1 code, one of `also`, or `und` for a text without letters.
    """
    sample = _sample(text)
    if not any(map(str.isalpha, sample)):
        return UNDETERMINED, 0.0
    identifier, _ = _identifier(tuple(sorted({code for code in also if len(code) > 2})))
    language, probability = identifier.classify(sample)
    return language, float(probability)


def check_languages(codes: Collection[str]) -> None:
    """UserError for a code that the model cannot find."""
    if not codes:
        return
    _, labels = _identifier(())
    if unknown := sorted(set(codes) - labels):
        known = " ".join(sorted(code for code in labels if len(code) == 2))
        raise UserError(f"corpus.languages has {unknown[0]!r}, a language that cannot be detected: choose from {known}.")


def _sample(text: str) -> str:
    if len(text) <= 3 * _PIECE_CHARS:
        return text
    middle = (len(text) - _PIECE_CHARS) // 2
    return "\n".join((text[:_PIECE_CHARS], text[middle : middle + _PIECE_CHARS], text[-_PIECE_CHARS:]))


@cache
def _identifier(also: tuple[str, ...]) -> tuple[Any, frozenset[str]]:
    """The model and all its language codes, loaded once a process. It chooses among ISO 639-1 languages and `also`.

    Without that limit it would split a language's probability among varieties, such as Chinese and Cantonese.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    labels = frozenset(identifier.labels)
    identifier.set_languages([code for code in identifier.labels if len(code) == 2 or code in also])
    return identifier, labels
