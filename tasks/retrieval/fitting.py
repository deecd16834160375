"""Documents of exactly one length: the context is made about as long as fits, and spare text fills the rest, token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tasks.retrieval.draft import Draft, NotMade
from tasks.retrieval.rendering import Rendered, Renderer
from tasks.tokens.encoding import Encoder

_FIRST = 0.7  # of the length: the context of the first try
_TRIES = 10
_SLACK, _LEAST_SLACK, _MOST_SLACK = 0.02, 16, 256  # of the length, and tokens: what spare text may fill
_LATE_SLACK = 4  # times that, where no try came nearer
_FILLS = 8
_NEARBY = 8  # sizes of the filling below the best one that are tried with paddings
_PADDINGS = ("", "\n", ".", " .", "\n\n", " . .", "\n.\n", " , .")


@dataclass(frozen=True)
class Fitted:
    """A document of exactly the wanted length; `fill` is what was taken of the draft's spare text, with padding after it."""

    draft: Draft
    num_filled: int
    rendered: Rendered


def fit(make: Callable[[int], Draft], renderer: Renderer, length: int, chars_per_token: float) -> Fitted:
    """A draft of `make`, whose argument is the characters of its context, with `length` tokens. NotMade if there is none."""
    draft, gap = _about(make, renderer, length, chars_per_token)
    spare = _Spare(draft.spare[: int(4 * (gap + _NEARBY) * max(1.0, chars_per_token)) + 16], renderer.encoder)
    tried: dict[tuple[int, int], Rendered] = {}

    def off(count: int, padding: int = 0) -> int:
        if (count, padding) not in tried:
            tried[count, padding] = renderer.render(draft, spare.text(count) + _PADDINGS[padding])
        return length - len(tried[count, padding].token_ids)

    count = gap
    for _ in range(_FILLS):
        count = min(max(count, 0), spare.num_tokens)
        missing = off(count)
        if not missing or (count + missing, 0) in tried:
            break
        count += missing
    if all(off(*key) for key in list(tried)):
        below = max((near for near, _ in tried if off(near) > 0), default=count)
        for near in range(below, max(-1, below - _NEARBY), -1):
            if not all(off(near, padding) for padding in range(len(_PADDINGS))):
                break
    for (count, _), rendered in tried.items():
        if len(rendered.token_ids) == length:
            return Fitted(draft, len(spare.text(count)), rendered)
    raise NotMade("no exact fit")


def _about(make: Callable[[int], Draft], renderer: Renderer, length: int, chars_per_token: float) -> tuple[Draft, int]:
    """A draft that is a little too short, and how many tokens it lacks."""
    slack = min(max(int(_SLACK * length), _LEAST_SLACK), _MOST_SLACK)
    num_chars = int(_FIRST * length * chars_per_token)
    best: tuple[int, Draft] | None = None
    for attempt in range(_TRIES):
        if num_chars < 1:
            raise NotMade("too short for this kind")
        draft = make(num_chars)
        gap = length - len(renderer.render(draft, "").token_ids)
        if 0 <= gap <= slack:
            return draft, gap
        if gap > 0 and (best is None or gap < best[0]):
            best = gap, draft
        steps = 1 + attempt // 3  # smaller ones where other questions come and go
        change = int((gap - slack / 2) * chars_per_token / steps)
        # Where the text has far more tokens than usual, the step would pass zero.
        num_chars = max(num_chars + (change or (1 if gap > 0 else -1)), num_chars // 3)
    if best and best[0] <= _LATE_SLACK * slack:
        return best[1], best[0]
    raise NotMade("no context of the right size")


class _Spare:
    """Text to fill with, by tokens."""

    def __init__(self, text: str, encoder: Encoder) -> None:
        self._encoded = next(encoder.encode([text], is_start=False))

    @property
    def num_tokens(self) -> int:
        return len(self._encoded.ids)

    def text(self, num_tokens: int) -> str:
        """The text of at most `num_tokens` tokens."""
        cut = int(np.searchsorted(self._encoded.cut_token, num_tokens, side="right")) - 1
        return self._encoded.text[: int(self._encoded.cut_char[cut])]
