"""Prompts as the tokens of their whole text, and how much fits.

Pieces are encoded one by one to plan a prompt, but their ids end to end are not always what the tokenizer makes of the joined text: a
line end may merge with the full stop in front of it. So a finished prompt is encoded again as a whole, together with its
answer. Control tokens in it (BOS, a chat template's) stay. The text between them is encoded as the tokenizer encodes it behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tasks.evaluate.prompts.material import Haystack
from tasks.evaluate.prompts.pieces import Needle, encode
from tasks.tokens.chat import opening_with_bos
from tasks.tokens.encoding import encoder_of
from tasks.tokens.lines import line_table_of
from tasks.tokens.special_tokens import special_tokens

_TRIES = 8  # of jumps to the right size
_NEARBY = 8  # sizes below the best jump that are tried with paddings
# Put at the end of a haystack whose own text does not fill the length exactly.
_PADDINGS = ("", "\n", " .", " a", " a b", "\n\n", " . .", " a b c", "\n\n\n")
_JUMPS = 16  # of `most_that_fit`, before it halves


@dataclass(frozen=True)
class Joined:
    """A prompt and its answer, int32. `starts`: the tokens at which the marked ones of the pieces are now."""

    tokens: np.ndarray
    answer: np.ndarray
    starts: tuple[int, ...]


def join(pieces: Sequence[np.ndarray], answer: np.ndarray, tokenizer: Any, marks: Sequence[int] = ()) -> Joined:
    """The pieces and the answer, encoded as one text. `marks` ascend and count tokens of the pieces end to end."""
    ids = np.concatenate([*pieces, answer])
    end = len(ids) - len(answer)
    tokens, moved = _encoded_whole(ids, [*marks, end], tokenizer)
    return Joined(tokens[: moved[-1]], tokens[moved[-1] :], tuple(moved[:-1]))


def _encoded_whole(ids: np.ndarray, marks: Sequence[int], tokenizer: Any) -> tuple[np.ndarray, list[int]]:
    encoder = encoder_of(tokenizer)
    controls = np.flatnonzero(encoder.is_control[ids])
    written: list[np.ndarray] = []
    moved: list[int] = []
    num_written = start = 0
    is_start = True
    for stop in [*controls.tolist(), len(ids)]:
        inside = [mark for mark in marks[len(moved) :] if mark <= stop]
        tokens, places = _encoded_run(ids[start:stop], [mark - start for mark in inside], tokenizer, is_start)
        moved += [num_written + place for place in places]
        written += [tokens, ids[stop : stop + 1]]
        num_written += len(tokens) + 1
        start = stop + 1
        if stop < len(ids):
            is_start = encoder.begins_anew(int(ids[stop])) or (
                stop == 0 and encoder.puts_space and _is_put_in_front(ids, tokenizer)
            )
    return np.concatenate(written), moved


def _is_put_in_front(ids: np.ndarray, tokenizer: Any) -> bool:
    """Whether the first token is BOS that no chat template writes, so that the text begins behind it."""
    opening = opening_with_bos(tokenizer)
    is_written = len(opening) > 0 and ids[: len(opening)].tolist() == list(opening)
    return not is_written and ids[:1].tolist() == special_tokens(tokenizer).opening.tolist()


def _encoded_run(ids: np.ndarray, marks: list[int], tokenizer: Any, is_start: bool) -> tuple[np.ndarray, list[int]]:
    encoder = encoder_of(tokenizer)
    bounds = [0, *marks, len(ids)]
    texts = [encoder.text(ids[a:b]) for a, b in pairwise(bounds)]
    chars = np.cumsum([len(text) for text in texts[:-1]], dtype=np.int64).tolist()
    return line_table_of(tokenizer).encode("".join(texts), chars, is_start=is_start)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The text around a haystack, int32 token ids. `reserved` tokens are left for the output."""

    front: np.ndarray
    question: np.ndarray
    answer: np.ndarray
    reserved: int
    tokenizer: Any

    def filled(
        self, hay: Haystack, placed: Sequence[tuple[int, Needle]], length: int, *, num_hay: int, guess: int | None = None
    ) -> tuple[Joined, int]:
        """The prompt that has exactly `length` tokens with its output, or the longest below, and how many tokens of `hay` it holds.

        Args:
            placed: tokens of the haystack in front of each needle, ascending. Those of `num_hay` or more stand at its end.
            num_hay: tokens of the haystack, by the sizes of the pieces.
            guess: where the search starts, such as what another prompt of the sample held.
        """
        tried: dict[tuple[int, int], Joined] = {}

        def size(count: int, padding: int = 0) -> int:
            if (count, padding) not in tried:
                tried[count, padding] = self._joined(hay, placed, count, padding, num_hay)
            return self._size(tried[count, padding])

        count = num_hay if guess is None else guess
        for _ in range(_TRIES):
            count = min(max(count, 1), len(hay.token_ids))
            if (off := length - size(count)) == 0 or (count + off, 0) in tried:
                break
            count += off
        if length not in map(self._size, tried.values()):
            below = max((near for (near, _), joined in tried.items() if self._size(joined) < length), default=count)
            for near in range(below, max(0, below - _NEARBY), -1):
                if any(size(near, padding) == length for padding in range(len(_PADDINGS))):
                    break
        fitting = [key for key, joined in tried.items() if self._size(joined) <= length]
        best = max(fitting, key=lambda key: (self._size(tried[key]), key[0])) if fitting else min(tried)
        return tried[best], best[0]

    def _size(self, joined: Joined) -> int:
        return len(joined.tokens) + max(len(joined.answer), self.reserved)

    def _joined(self, hay: Haystack, placed: Sequence[tuple[int, Needle]], count: int, padding: int, num_hay: int) -> Joined:
        shown = hay.token_ids[:count]
        if padding:
            shown = np.concatenate([shown, encode(_PADDINGS[padding], self.tokenizer)])
        pieces, marks = [self.front], []
        written, taken = len(self.front), 0
        for cut, needle in placed:
            place = len(shown) if cut >= num_hay else min(cut, len(shown))
            pieces += [shown[taken:place], needle.tokens]
            marks.append(written + place - taken + needle.gold_at)
            written, taken = written + place - taken + len(needle.tokens), place
        return join([*pieces, shown[taken:], self.question], self.answer, self.tokenizer, marks)


def most_that_fit(guess: int, low: int, high: int, limit: int, num_tokens: Callable[[int], int]) -> int:
    """The most items, low to high, whose prompt has at most `limit` tokens; low - 1 if even `low` are too many.

    `num_tokens` grows with the number of items, so that a few tries around `guess` find it.
    """
    fits, too_many = low - 1, high + 1
    count, tries = guess, 0
    while too_many - fits > 1:
        count = min(max(count, fits + 1), too_many - 1) if tries < _JUMPS else (fits + too_many) // 2
        size = num_tokens(count)
        if size <= limit:
            fits = count
        else:
            too_many = count
        step = round((limit - size) * count / max(1, size))
        count, tries = count + (step or (1 if size <= limit else -1)), tries + 1
    return fits
