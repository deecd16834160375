"""Lines of keys and values at random places of real text, and many of them asked for at the end.

After artificial needles (Xiong et al. 2024, arXiv 2406.19292), from easy to hard. Half of the documents have keys of one part. The others
have keys of two parts: every part is shared with other lines, asked for or not, so a value can only be found by its whole key. Half of
the documents have few lines, the others as many as half of their text. How a line is written differs from document to document.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

import numpy as np

from tasks.retrieval.draft import Draft, NotMade
from tasks.retrieval.families.asking import in_some_order
from tasks.retrieval.families.forms import Form, form
from tasks.retrieval.families.names import distinct, name_kind, short_name, value_kind
from tasks.retrieval.families.request import Request
from tasks.retrieval.stretches import Beginnings

_DISTRACTORS = 0.5  # lines that are not asked for, beside each that is
_MANY_LINES = 0.4  # of the document's characters, in documents with many lines
_HALF = 0.5  # of the documents
SAMPLE_NAME = "bako-ludi"  # as long as names are
_AT_THE_BEGINNING = 0.5  # of the documents have a line right at their beginning, which is asked for


def key_value(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    if not request.symbols:
        raise NotMade("the tokenizer cannot write the keys")
    written_as = form(rng, request.symbols, request.signs)
    line_chars = line_cost(written_as, request)
    asked = min(request.questions, int(request.asked_chars / (2 * line_chars)))
    text = request.supply.passage(num_chars)
    if not asked:
        raise NotMade("too short for a question")
    if len(text) < num_chars:
        raise NotMade("the text is used up")
    number = asked + max(1, math.ceil(_DISTRACTORS * asked))
    if rng.random() < _HALF:
        number = max(number, int(_MANY_LINES * request.num_chars / line_chars))
    keys, values = keys_and_values(number, number, written_as, request, rng)
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
        line = f"{written_as.line(keys[i], values[i])}\n"
        evidence[i] = written + len(front)
        lines.append((evidence[i], evidence[i] + len(line)))
        pieces += [front, line]
        taken, written = place, written + len(front) + len(line)
    turns = [written_as.turn(keys[i], values[i], evidence[i]) for i in range(asked)]
    return Draft(
        before="".join(pieces) + text[taken:],
        spare=request.supply.passage(2 * num_chars)[num_chars:],
        num_used=num_chars,
        doc_ids=request.supply.doc_ids(num_chars),
        turns=in_some_order(turns, rng),
        invented=tuple(lines),
        asks_invented=True,
    )


def line_cost(written_as: Form, request: Request) -> float:
    """Characters of text that take about as many tokens as a line, with a line break."""
    return (len(written_as.line(SAMPLE_NAME, SAMPLE_NAME)) + 1) * request.name_cost


def keys_and_values(
    number: int, among: int, written_as: Form, request: Request, rng: np.random.Generator, used: Set[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """Different keys of one kind and different values of one kind, of kinds that have many more names than `among`.

    Half of the time a key has two parts that other keys share. No name of one part is in `used`; no value is a key, part of one or word
    of the form.
    """
    if rng.random() < _HALF:
        keys = distinct(name_kind(rng, request.symbols, among), number, used)
    else:
        side = math.ceil(math.sqrt(number)) + 1
        parts = distinct(lambda: short_name(rng, request.symbols), 2 * side)
        cells = rng.permutation(side * side)[:number].tolist()
        keys = [f"{parts[cell // side]}.{parts[side + cell % side]}" for cell in cells]
    return keys, distinct(value_kind(rng, request.symbols, among), number, used | names_in(keys, written_as))


def names_in(keys: Sequence[str], written_as: Form) -> set[str]:
    """The keys, their parts and the words of the form."""
    return {*keys, *(part for key in keys for part in key.split(".")), *written_as.line("", "").split()}
