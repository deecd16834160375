"""A question before its control is made, and the names and numbers that it may plant: none of them is in the document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tasks.advise.questions.question import Form
from tasks.evaluate.prompts.numbers import absent_numbers
from tasks.evaluate.prompts.small_world import PLACES
from tasks.evaluate.prompts.words import invented_words, key_names

_DIGITS = 5
_TRIES = 20


@dataclass(frozen=True)
class Draft:
    """`evidence`, in reading order, is taken out for the control."""

    form: Form
    document: str
    question: str
    answers: tuple[str, ...]
    evidence: tuple[tuple[int, int], ...]
    options: tuple[str, ...] = ()

    @property
    def hidden(self) -> tuple[str, ...]:
        """Texts that the control must not hold."""
        return self.counted if self.form == "count" else (*self.answers, *self.options)

    @property
    def counted(self) -> tuple[str, ...]:
        """The different texts of the evidence."""
        return tuple(dict.fromkeys(self.document[start:end] for start, end in self.evidence))


def names(count: int, text: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Different names like "amber-otter" that are not in `text`, and none of which holds another."""
    return _absent(lambda: key_names(2 * count, rng), count, text)


def places(count: int, text: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Different places like "orchard" that are not in `text`; invented words where it has too many of them."""
    usual = [PLACES[i] for i in rng.permutation(len(PLACES)).tolist() if PLACES[i] not in text.casefold()]
    return tuple(usual[:count]) if len(usual) >= count else _absent(lambda: invented_words(2 * count, rng), count, text)


def codes(count: int, text: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Different numbers of five digits that are not in `text`."""
    return tuple(absent_numbers(count, _DIGITS, text, rng))


def _absent(draw: Callable[[], list[str]], count: int, text: str) -> tuple[str, ...]:
    folded = text.casefold()
    found: dict[str, None] = {}
    for _ in range(_TRIES):
        found |= dict.fromkeys(name for name in draw() if name not in folded)
        if len(found) >= count:
            break
    return tuple(found)[:count]
