"""Random numbers that do not occur in a text."""

from __future__ import annotations

import re

import numpy as np


def absent_numbers(count: int, num_digits: int, text: str, rng: np.random.Generator) -> list[str]:
    """`count` different numbers of `num_digits` digits, uniform over those that do not occur in `text`."""
    lowest = 10 ** (num_digits - 1)
    taken = {int(found) for found in re.findall(rf"(?=([1-9][0-9]{{{num_digits - 1}}}))", text)}
    numbers = []
    for _ in range(count):
        number = int(rng.integers(lowest, 10 * lowest - len(taken)))
        for other in sorted(taken):  # the number-th of those that are left
            number += other <= number
        taken.add(number)
        numbers.append(str(number))
    return numbers
