"""Lines of keys and values at random places of real text, and many of them asked for at the end.

After artificial needles (Xiong et al. 2024, arXiv 2406.19292), from easy to hard. Half of the documents have keys of one word. The others
have keys of two parts: every part is shared with other lines, asked for or not, so a value can only be found by its whole key. Half of
the documents have few lines, the others as many as half of their text.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from tasks.retrieval.draft import Draft, NotMade, Turn
from tasks.retrieval.families.asking import in_some_order
from tasks.retrieval.families.names import digits, distinct, syllables
from tasks.retrieval.families.request import Request
from tasks.retrieval.stretches import Beginnings

STYLES = ("[{key}]", "{key} :=", "<{key}>", "@{key} @")
_DISTRACTORS = 0.5  # lines that are not asked for, beside each that is
_MOST_OF_TWO_PAIRS = 5_000
_MANY_LINES = 0.4  # of the document's characters, in documents with many lines
_HALF = 0.5  # of the documents
_LINE_CHARS = 24
_AT_THE_BEGINNING = 0.5  # of the documents have a line right at their beginning, which is asked for


def key_value(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    if not request.symbols:
        raise NotMade("the tokenizer cannot write the keys")
    asked = min(request.questions, request.asked_chars // (2 * _LINE_CHARS))
    text = request.supply.passage(num_chars)
    if not asked:
        raise NotMade("too short for a question")
    if len(text) < num_chars:
        raise NotMade("the text is used up")
    style = STYLES[rng.integers(len(STYLES))]
    number = asked + max(1, math.ceil(_DISTRACTORS * asked))
    if rng.random() < _HALF:
        number = max(number, int(_MANY_LINES * request.num_chars / _LINE_CHARS))
    make_keys = _words if rng.random() < _HALF else _pairs
    keys, values = make_keys(number, request, rng), _values(number, request, rng)
    depths = rng.random(number)
    if rng.random() < _AT_THE_BEGINNING:  # so that depth 0 is asked for too
        depths[0] = 0
    order = np.argsort(depths, kind="stable").tolist()
    pieces: list[str] = []
    evidence = [0] * number
    lines: list[tuple[int, int]] = []
    taken = written = 0
    beginnings = Beginnings(text)
    for i in order:
        place = max(taken, beginnings.nearest(int(depths[i] * len(text)))) if depths[i] else 0
        front = text[taken:place]
        front += "\n" if front and not front.endswith("\n") else ""
        line = f"{style.format(key=keys[i])} {values[i]}\n"
        evidence[i] = written + len(front)
        lines.append((evidence[i], evidence[i] + len(line)))
        pieces += [front, line]
        taken, written = place, written + len(front) + len(line)
    turns = [Turn(style.format(key=keys[i]), f" {values[i]}", evidence[i]) for i in range(asked)]
    return Draft(
        before="".join(pieces) + text[taken:],
        spare=request.supply.passage(2 * num_chars)[num_chars:],
        num_used=num_chars,
        doc_ids=request.supply.doc_ids(num_chars),
        turns=in_some_order(turns, rng),
        invented=tuple(lines),
        asks_invented=True,
    )


def _words(number: int, request: Request, rng: np.random.Generator) -> list[str]:
    """Different words."""
    if "letters" in request.symbols:
        return distinct(lambda: syllables(rng, 3), number)
    return distinct(partial(digits, rng, _digit_pairs(number)), number)


def _digit_pairs(number: int) -> int:
    """Enough pairs of digits for so many different names, most of which are not taken."""
    return 2 if number <= _MOST_OF_TWO_PAIRS else 4


def _pairs(number: int, request: Request, rng: np.random.Generator) -> list[str]:
    """Different pairs of a few first and a few second parts."""
    side = math.ceil(math.sqrt(number)) + 1
    parts = distinct(partial(_part, request, rng), 2 * side)
    cells = rng.permutation(side * side)[:number].tolist()
    return [f"{parts[cell // side]}.{parts[side + cell % side]}" for cell in cells]


def _values(number: int, request: Request, rng: np.random.Generator) -> list[str]:
    if request.symbols[int(rng.integers(len(request.symbols)))] == "digits":
        return distinct(partial(digits, rng, _digit_pairs(number)), number)
    return distinct(lambda: syllables(rng, 3), number)


def _part(request: Request, rng: np.random.Generator) -> str:
    return syllables(rng, 2) if "letters" in request.symbols else digits(rng)
