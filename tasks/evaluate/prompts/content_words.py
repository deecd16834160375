"""The content words of a text, to check that two texts share none."""

from __future__ import annotations

import re

from tasks.evaluate.prompts.words import word_list

FUNCTION_WORDS = frozenset(
    word_list(
        "a an and are as at be been beside by called does for from had has have he her here his in into is it its name "
        "named near no not now of on one or other she so that the their them there these they this to up was were what "
        "when where which who whose why will with"
    )
)
STEM_LETTERS = 4  # words that begin with the same four letters count as one: Venice, Venices


def words(text: str) -> frozenset[str]:
    """All words, in lower case."""
    return frozenset(re.findall(r"[^\W\d_]+", text.casefold()))


def content_words(text: str) -> frozenset[str]:
    """The words that carry meaning, in lower case."""
    return words(text) - FUNCTION_WORDS


def shared_content(first: str, second: str) -> frozenset[str]:
    """Content words of `first` that occur in `second`, in this or another form."""
    stems = {word[:STEM_LETTERS] for word in content_words(second)}
    return frozenset(word for word in content_words(first) if word[:STEM_LETTERS] in stems)
