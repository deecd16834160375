"""Lines of keys and values that are asked for at once, in rounds: a few lines and their questions, then other lines and theirs.

`key_value` asks at the end of a document with dozens of lines. A model that cannot look up a key yet learns little from it, because
among so many lines chance is of no help. Here most rounds have few lines, and every line is asked for, so a document has about twice as
many answers. What is learned is the look-up itself; from how far away it works is what `key_value` teaches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tasks.retrieval.draft import Draft, NotMade, Turn
from tasks.retrieval.families.forms import Form, form
from tasks.retrieval.families.key_value import SAMPLE_NAME, keys_and_values, line_cost, names_in
from tasks.retrieval.families.request import Request
from tasks.retrieval.families.writing import Writing

_OF_LINES_AND_QUESTIONS = 0.8  # of the document's characters
_FEWEST = 2  # lines of a round
_WITH_TEXT = 0.5  # of the rounds have text between their lines


@dataclass(frozen=True)
class _Round:
    """Lines of one form."""

    written_as: Form
    keys: list[str]
    values: list[str]


def key_value_rounds(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    if not request.symbols:
        raise NotMade("the tokenizer cannot write the keys")
    rounds = _rounds(request, rng)
    if not rounds:
        raise NotMade("too short for a question")
    text = request.supply.passage(num_chars)
    if len(text) < num_chars:
        raise NotMade("the text is used up")
    writing = Writing(text)
    of_text = rng.random(len(rounds)) * (rng.random(len(rounds)) < _WITH_TEXT)
    ends = np.cumsum(of_text) / max(of_text.sum(), 1e-9)
    turns: list[Turn] = []
    for one, start, end in zip(rounds, [0.0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        for turn in turns:
            writing.turn(turn)
        places = np.sort(start + rng.random(len(one.keys)) * (end - start)).tolist()
        lines = zip(one.keys, one.values, places, strict=True)
        evidence = [writing.line(one.written_as.line(key, value), place) for key, value, place in lines]
        order = rng.permutation(len(one.keys)).tolist()
        turns = [one.written_as.turn(one.keys[i], one.values[i], evidence[i]) for i in order]
    return Draft(
        before=writing.finish(),
        spare=request.supply.passage(2 * num_chars)[num_chars:],
        num_used=num_chars,
        doc_ids=request.supply.doc_ids(num_chars),
        turns=tuple(turns),
        answers=tuple(writing.answers),
        invented=tuple(writing.invented),
        asks_invented=True,
    )


def _rounds(request: Request, rng: np.random.Generator) -> list[_Round]:
    """As many as there is room for, of lines that are drawn evenly on a logarithmic scale up to twice the number of questions."""
    room = _OF_LINES_AND_QUESTIONS * request.num_chars
    most = max(_FEWEST, 2 * request.questions)
    among = int(room / (2 * request.name_cost * len(SAMPLE_NAME)))  # more than there are lines
    used: set[str] = set()
    rounds: list[_Round] = []
    while True:
        written_as = form(rng, request.symbols, request.signs)
        size = int(math.exp(rng.uniform(math.log(_FEWEST), math.log(most + 1))))
        cost = 2 * line_cost(written_as, request)
        size = min(size, int(room / cost))
        if size < _FEWEST:
            return rounds
        keys, values = keys_and_values(size, among, written_as, request, rng, used)
        used |= names_in(keys, written_as) | set(values)
        rounds.append(_Round(written_as, keys, values))
        room -= cost * size
