"""Names that no text has: syllables and pairs of digits, and the lines in which they stand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


def syllables(rng: np.random.Generator, number: int) -> str:
    """Such as "bako" for two syllables."""
    return "".join(CONSONANTS[rng.integers(len(CONSONANTS))] + VOWELS[rng.integers(len(VOWELS))] for _ in range(number))


def digits(rng: np.random.Generator) -> str:
    """Such as "47-13"."""
    return "-".join(f"{n:02d}" for n in rng.integers(0, 100, 2).tolist())


def distinct(draw: Callable[[], str], number: int, avoid: str = "") -> list[str]:
    """`number` different names, none of which occurs in `avoid`."""
    found: dict[str, None] = {}
    while len(found) < number:
        name = draw()
        if name not in avoid:
            found[name] = None
    return list(found)
