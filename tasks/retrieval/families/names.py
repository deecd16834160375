"""Names that no text has: syllables and pairs of digits, and the lines in which they stand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tasks.retrieval.draft import NotMade

_MOST_DRAWS = 20  # for each name
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


def syllables(rng: np.random.Generator, number: int) -> str:
    """Such as "bako" for two syllables."""
    return "".join(CONSONANTS[rng.integers(len(CONSONANTS))] + VOWELS[rng.integers(len(VOWELS))] for _ in range(number))


def digits(rng: np.random.Generator, pairs: int = 2) -> str:
    """Such as "47-13" for two pairs."""
    return "-".join(f"{n:02d}" for n in rng.integers(0, 100, pairs).tolist())


def distinct(draw: Callable[[], str], number: int, avoid: str = "") -> list[str]:
    """`number` different names, none of which occurs in `avoid`. NotMade if hardly so many exist."""
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
