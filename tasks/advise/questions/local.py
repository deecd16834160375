"""Local facts: one place of the document answers the question."""

from __future__ import annotations

import re

import numpy as np

from tasks.advise.questions.draft import Draft, codes, names
from tasks.advise.questions.planting import plant
from tasks.ngrams.word_ngrams import word_blocks

FACT = "# The code of the {name} is {code}."
_ANCHOR_WORDS, _ANSWER_WORDS = 5, 3
_ANCHOR_CHARACTERS, _ANSWER_CHARACTERS = 12, 6  # at least: in some scripts a character counts as a word
_MOST_CHARACTERS = 100  # in some scripts a phrase counts as a word
_TRIES = 200


def fact(text: str, rng: np.random.Generator) -> Draft:
    """A planted code of five digits, among two others that are not asked for."""
    (asked, *others), (right, *wrong) = names(3, text, rng), codes(3, text, rng)
    shares = rng.random(3).tolist()
    sentences = [FACT.format(name=name, code=code) for name, code in zip([asked, *others], [right, *wrong], strict=True)]
    planted = plant(text, list(zip(shares, sentences, strict=True)))
    return Draft("fact", planted.text, f"What is the code of the {asked}?", (right,), planted.spans[:1])


def quote(text: str, rng: np.random.Generator) -> Draft | None:
    """Words that follow other words of the document. Both occur once, on one line. None: no such place was found."""
    blocks = [(block.starts, block.ends) for block in word_blocks(text)]
    starts, ends = (np.concatenate(both).tolist() for both in zip(*blocks, strict=True))
    folded = text.casefold()
    for first in rng.permutation(len(starts))[:_TRIES].tolist():
        middle = _last_word(first, _ANCHOR_WORDS, _ANCHOR_CHARACTERS, starts, ends)
        last = _last_word(middle + 1, _ANSWER_WORDS, _ANSWER_CHARACTERS, starts, ends)
        if last >= len(starts):
            continue
        anchor, answer = text[starts[first] : ends[middle]], text[ends[middle] : ends[last]].strip()
        is_plain = '"' not in anchor and "\n" not in text[starts[first] : ends[last]] and re.match(r"\w", answer)
        if is_plain and len(anchor) <= _MOST_CHARACTERS and len(answer) <= _MOST_CHARACTERS:
            if folded.count(anchor.casefold()) == 1 and folded.count(answer.casefold()) == 1:
                asks = f'Which words come right after "{anchor}" in the document?'
                return Draft("quote", text, asks, (answer,), ((starts[first], ends[last]),))
    return None


def _last_word(first: int, num_words: int, num_characters: int, starts: list[int], ends: list[int]) -> int:
    """Number of the last of at least so many words and characters from word `first` on."""
    last = first + num_words - 1
    while last < len(starts) and ends[last] - starts[first] < num_characters:
        last += 1
    return last
