"""Figures of a text that quality filters compare with a limit (after Gopher, Rae et al. 2021, appendix A1)."""

import re

from tasks.ngrams.word_ngrams import distinct, ngram_hashes

_NGRAM_WORDS = 5
_SPACES = re.compile(r"\s+")
_SYMBOL = re.compile(r"[^\w\s.,;:!?'\"()\[\]\-–—…/%“”„‘’‚«»‹›¿¡、。，．！？；：「」『』（）·।॥؟،؛]")


def repeated_share(text: str) -> float:
    """The larger of two shares: of characters in lines that stand further up already, and of 5-word sequences that do."""
    return max(_repeated_lines(text), _repeated_ngrams(text))


def symbol_share(text: str) -> float:
    """Share of the visible characters that are neither letters, digits nor common punctuation."""
    num_visible = len(text) - sum(len(found) for found in _SPACES.findall(text))
    return sum(1 for _ in _SYMBOL.finditer(text)) / num_visible if num_visible else 0.0


def _repeated_lines(text: str) -> float:
    seen: set[int] = set()
    total = repeated = 0
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            continue
        total += len(stripped)
        key = hash(stripped)
        if key in seen:
            repeated += len(stripped)
        seen.add(key)
    return repeated / total if total else 0.0


def _repeated_ngrams(text: str) -> float:
    hashes = ngram_hashes(text, _NGRAM_WORDS)
    return 1 - len(distinct(hashes)) / len(hashes) if len(hashes) else 0.0
