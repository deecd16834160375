"""Names that texts hardly have, made of syllables and digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import numpy as np

from tasks.retrieval.draft import NotMade

_MOST_DRAWS = 20  # for each name
_FEW_NAMES = 400
_NUMBER_DIGITS = 6, 8  # of a plain number where few or many are needed: no evaluation task has numbers of these lengths
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


def syllables(rng: np.random.Generator, number: int) -> str:
    """Such as "bako" for two syllables."""
    return "".join(CONSONANTS[rng.integers(len(CONSONANTS))] + VOWELS[rng.integers(len(VOWELS))] for _ in range(number))


def digits(rng: np.random.Generator, pairs: int = 2) -> str:
    """Such as "47-13" for two pairs."""
    return "-".join(f"{n:02d}" for n in rng.integers(0, 100, pairs).tolist())


def short_name(rng: np.random.Generator, symbols: Sequence[str]) -> str:
    """Two syllables, or else two pairs of digits."""
    return syllables(rng, 2) if "letters" in symbols else digits(rng)


def name_kind(rng: np.random.Generator, symbols: Sequence[str], number: int) -> Callable[[], str]:
    """A kind of names of `symbols`, many more than `number`: like "bakolu", "bako-ludi", "bako47", "47-13", "4-7-1-0", "471300"."""
    more = 1 if number > _FEW_NAMES else 0
    length = _NUMBER_DIGITS[more]
    kinds: list[Callable[[], str]] = []
    if "letters" in symbols:
        kinds += [lambda: syllables(rng, 3 + more), lambda: f"{syllables(rng, 2)}-{syllables(rng, 2)}"]
    if "digits" in symbols:
        kinds += [
            lambda: digits(rng, 2 + 2 * more),
            lambda: "-".join(str(n) for n in rng.integers(0, 10, 4 + 2 * more).tolist()),
            lambda: str(rng.integers(10 ** (length - 1), 10**length)),
        ]
    if len(symbols) > 1:
        kinds += [lambda: f"{syllables(rng, 2)}{rng.integers(10, 100)}", lambda: f"{rng.integers(10, 100)}{syllables(rng, 2)}"]
    return kinds[int(rng.integers(len(kinds)))]


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
