"""Evidence spread over the whole document: counts, first and last mention, order of events, contradiction."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tasks.advise.questions.draft import Draft, codes, names
from tasks.advise.questions.planting import plant
from tasks.advise.questions.question import NUMBER_WORDS

ARRIVED, SEEN, STATED = "# The {name} arrived.", "# The {name} was seen here.", "# The code of the {name} is {code}."
COUNTS = (3, 8)
_NUM_OPTIONS = 4
_WORD_LETTERS = 4
_COVERED = 0.5  # share of the document between the first and the last occurrence of a word that is counted


def count_word(text: str, rng: np.random.Generator) -> Draft | None:
    """How often a word of the document occurs. None: no word occurs 3 to 8 times over half of the document."""
    words = Counter(re.findall(rf"[^\W\d_]{{{_WORD_LETTERS},}}", text))
    usual = sorted(word for word, times in words.items() if COUNTS[0] <= times <= COUNTS[1])
    folded = text.casefold()
    for i in rng.permutation(len(usual)).tolist():
        word = usual[i]
        found = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text)]
        is_plain = len(found) == folded.count(word.casefold())  # no other case, and inside no other word
        if is_plain and len(found) >= COUNTS[0] and found[-1][0] - found[0][0] >= _COVERED * len(text):
            asks = f'How many times does the word "{word}" occur in the document?'
            return Draft("count", text, asks, _number(len(found)), tuple(found))
    return None


def count_marker(text: str, rng: np.random.Generator) -> Draft:
    """How often a planted sentence occurs, between sentences about another name."""
    (asked, other) = names(2, text, rng)
    times, others = (int(n) for n in rng.integers(COUNTS[0], COUNTS[1] + 1, 2))
    sentences = [SEEN.format(name=asked)] * times + [SEEN.format(name=other)] * others
    planted = plant(text, list(zip([*_spread(times, rng), *rng.random(others).tolist()], sentences, strict=True)))
    asks = f"How many times was the {asked} seen in the document?"
    return Draft("count", planted.text, asks, _number(times), tuple(sorted(planted.spans[:times])))


def first_mention(text: str, rng: np.random.Generator) -> Draft:
    return _mention("first", text, rng)


def last_mention(text: str, rng: np.random.Generator) -> Draft:
    return _mention("last", text, rng)


def order(text: str, rng: np.random.Generator) -> Draft:
    """The order in which four planted names arrive."""
    arrived = names(_NUM_OPTIONS, text, rng)
    planted = plant(text, list(zip(_spread(_NUM_OPTIONS, rng), (ARRIVED.format(name=n) for n in arrived), strict=True)))
    listed = _shuffled(arrived, rng)
    asks = f"In which order did these arrive in the document: {_listing(listed)}? Name all four, the first one first."
    return Draft("order", planted.text, asks, (", ".join(arrived),), planted.spans, listed)


def contradiction(text: str, rng: np.random.Generator) -> Draft:
    """Four planted names have a code, each stated in both halves of the document; one has two different codes."""
    asked, *agreeing = names(_NUM_OPTIONS, text, rng)
    first, second, *same = codes(_NUM_OPTIONS + 1, text, rng)
    stated = [(asked, first), (asked, second)] + [pair for pair in zip(agreeing, same, strict=True) for _ in range(2)]
    shares = [half + 0.4 * float(rng.random()) for _ in range(_NUM_OPTIONS) for half in (0.05, 0.55)]
    planted = plant(text, [(share, STATED.format(name=n, code=c)) for share, (n, c) in zip(shares, stated, strict=True)])
    listed = _shuffled((asked, *agreeing), rng)
    asks = f"One of these has two different codes in the document: {_listing(listed)}. Which one?"
    return Draft("contradiction", planted.text, asks, (asked,), tuple(sorted(planted.spans)), listed)


FORMS = (count_word, first_mention, order, contradiction, count_marker, last_mention)


def _mention(form: str, text: str, rng: np.random.Generator) -> Draft:
    """Which of four planted names, each seen three times in between the others, is the first or the last one."""
    seen = names(_NUM_OPTIONS, text, rng)
    rounds = [[seen[i] for i in rng.permutation(_NUM_OPTIONS).tolist()] for _ in range(3)]
    listed = [name for one in rounds for name in one]
    planted = plant(text, list(zip(_spread(len(listed), rng), (SEEN.format(name=n) for n in listed), strict=True)))
    right = listed[0] if form == "first" else listed[-1]
    options = _shuffled(seen, rng)
    asks = f"Which of these was seen {form} in the document: {_listing(options)}?"
    return Draft("first" if form == "first" else "last", planted.text, asks, (right,), planted.spans, options)


def _spread(count: int, rng: np.random.Generator) -> list[float]:
    """Ascending shares, one at random in each of `count` equal parts of the document."""
    return ((np.arange(count) + rng.uniform(0.1, 0.9, count)) / count).tolist()


def _shuffled(options: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Another order than the given one, so that a model that copies the question's list is wrong."""
    while True:
        listed = tuple(options[i] for i in rng.permutation(len(options)).tolist())
        if listed != tuple(options):
            return listed


def _listing(options: Sequence[str]) -> str:
    return ", ".join(f"the {option}" for option in options)


def _number(count: int) -> tuple[str, ...]:
    return (str(count), NUMBER_WORDS[count])
