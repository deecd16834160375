"""Names that texts hardly have, of a dozen kinds, made of syllables, letters and digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial

import numpy as np

from tasks.retrieval.draft import NotMade

_MOST_DRAWS = 20  # for each name
_FEW_NAMES = 400
_NUMBER_DIGITS = 6, 9  # of a plain number: no evaluation task has numbers of these lengths
_CLOSED = 0.3  # of the syllables end with a consonant
_NOT_SO_LONG = 5  # letters: the words that evaluation invents
_PLAIN_NUMBERS = 0.5  # of the documents or rounds have plain numbers as values, and some more by chance
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxz", "aeiou"
LETTERS, DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
_Kind = Callable[[], str]


def syllables(rng: np.random.Generator, number: int) -> str:
    """Such as "bako" or "bankol" for two syllables."""
    while True:
        name = "".join(_drawn(CONSONANTS, 1, rng) + _drawn(VOWELS, 1, rng) + _ending(rng) for _ in range(number))
        if len(name) != _NOT_SO_LONG:
            return name


def digits(rng: np.random.Generator, pairs: int = 2) -> str:
    """Such as "47-13" for two pairs."""
    return "-".join(f"{n:02d}" for n in rng.integers(0, 100, pairs).tolist())


def short_name(rng: np.random.Generator, symbols: Sequence[str]) -> str:
    """Two syllables, or else two pairs of digits."""
    return syllables(rng, 2) if "letters" in symbols else digits(rng)


def name_kind(rng: np.random.Generator, symbols: Sequence[str], number: int) -> _Kind:
    """A kind of names of `symbols`, many more than `number`: like "bakolum", "xqvd", "XQVD", "bako47", "47-13", "471300"."""
    more = 1 if number > _FEW_NAMES else 0
    kinds: list[_Kind] = []
    if "letters" in symbols:
        kinds += [
            lambda: syllables(rng, 3 + more),
            lambda: f"{syllables(rng, 2)}-{syllables(rng, 2)}",
            lambda: _drawn(LETTERS, 4 + 3 * more, rng),
            lambda: _drawn(LETTERS, 8, rng),
        ]
    if "capitals" in symbols:
        kinds += [lambda: _drawn(LETTERS.upper(), 4 + 3 * more, rng), lambda: syllables(rng, 3 + more).capitalize()]
    if "digits" in symbols:
        kinds += [
            lambda: digits(rng, 2 + 2 * more),
            lambda: "-".join(_drawn(DIGITS, 4 + 2 * more, rng)),
            *(partial(_plain_number, length, rng) for length in _NUMBER_DIGITS[more:]),
        ]
    if "letters" in symbols and "digits" in symbols:
        kinds += [
            lambda: f"{syllables(rng, 2)}{rng.integers(10, 100)}",
            lambda: f"{rng.integers(10, 100)}{syllables(rng, 2)}",
            lambda: _letters_and_digits(rng),
        ]
    return kinds[int(rng.integers(len(kinds)))]


def value_kind(rng: np.random.Generator, symbols: Sequence[str], number: int) -> _Kind:
    """A kind as `name_kind` has them; at least half of the time plain numbers, if `symbols` has digits."""
    if "digits" in symbols and rng.random() < _PLAIN_NUMBERS:
        return partial(_plain_number, int(rng.choice(_NUMBER_DIGITS[int(number > _FEW_NAMES) :])), rng)
    return name_kind(rng, symbols, number)


def _letters_and_digits(rng: np.random.Generator) -> str:
    """Seven signs, not all of them digits: such numbers are values in evaluation."""
    while (name := _drawn(LETTERS + DIGITS, 7, rng)).isdigit():
        pass
    return name


def _plain_number(length: int, rng: np.random.Generator) -> str:
    return str(rng.integers(10 ** (length - 1), 10**length))


def _ending(rng: np.random.Generator) -> str:
    return _drawn(CONSONANTS, 1, rng) if rng.random() < _CLOSED else ""


def _drawn(letters: str, number: int, rng: np.random.Generator) -> str:
    return "".join(letters[i] for i in rng.integers(0, len(letters), number).tolist())


def distinct(draw: Callable[[], str], number: int, avoid: Set[str] = frozenset()) -> list[str]:
    """`number` different names, none of which is in `avoid`. NotMade if hardly so many exist."""
    found: dict[str, None] = {}
    for _ in range(_MOST_DRAWS * number + _MOST_DRAWS):
        if len(found) == number:
            break
        name = draw()
        if name not in avoid:
            found[name] = None
    else:
        raise NotMade("not enough different names")
    return list(found)
