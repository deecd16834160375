"""How much text a prompt of RULER gets: a binary search, then a smaller size for samples that came out too long.

Every try draws from the task's own stream of random numbers, so sizes are tried in the authors' order. Their code tries for ever
where a prompt cannot fit; here that is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data_schemas.errors import UserError

MOST_TRIES = 100  # at the smallest size


@dataclass(frozen=True)
class Drawn:
    """A prompt's text, which ends where the answer starts, and the answers."""

    text: str
    golds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bounds of the search: `step` is its start and by how much a size shrinks, `upper` its end."""

    step: int
    upper: int


def estimated(num_tokens: int, of_size: int, limit: int) -> int:
    """Three times the size that would fill `limit`, where a prompt of `of_size` has `num_tokens`."""
    return int((limit / (num_tokens / of_size)) * 3)


def largest_size(draw: Callable[[int], Drawn], sizes: Sizes, count: Callable[[str], int], limit: int) -> int:
    """The largest size tried whose prompt has at most `limit` tokens, or `sizes.step`."""
    low, high, found = sizes.step, max(sizes.upper, 2 * sizes.step), None
    while low <= high:
        middle = (low + high) // 2
        if count(draw(middle).text) <= limit:
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return sizes.step if found is None else found


def fitting(
    draw: Callable[[int], Drawn], size: int, step: int, count: Callable[[str], int], limit: int, name: str, length: int
) -> Drawn:
    """The first prompt drawn that fits `limit`, from `size` down by `step`.

    Raises:
        UserError: none does at the smallest size.
    """
    tries = 0
    while tries < MOST_TRIES:
        try:
            drawn: Drawn | None = draw(size)
        except ValueError:  # fewer places than needles
            drawn = None
        if drawn is not None and count(drawn.text) <= limit:
            return drawn
        if size > step:
            size -= step
        else:
            tries += 1
    raise UserError(f"RULER's {name} does not fit {length} tokens: give longer evaluation.task_lengths.")
