"""Facts at random places of a text, in words that the text has. Later the words stand there again, and the value must follow.

In `key_value` a key stands nowhere else, and dozens of questions stand together at the end. So a model may learn to look up only what
looks like a key, among other questions. Here words of the text lead to a value, drawn as often as the text has them, and half of the
questions stand alone in the text. Facts are made in pairs that differ in one word, so one word is not enough to tell them apart.
"""

from __future__ import annotations

import numpy as np

from tasks.retrieval.draft import Draft, NotMade, Turn
from tasks.retrieval.families.asking import in_some_order
from tasks.retrieval.families.key_value import SAMPLE_NAME
from tasks.retrieval.families.names import distinct, value_kind
from tasks.retrieval.families.request import Request
from tasks.retrieval.families.writing import Writing
from tasks.retrieval.stretches import words

_FEWEST_WORDS, _MOST_WORDS = 3, 6  # of a fact
_LEAST_LETTERS = 2  # of a word, or two characters of a script without spaces
_FEWEST_DIFFERENT = 24  # words of the text
_AT_THE_END = 0.5  # of the questions
_AT_THE_BEGINNING = 0.5  # of the documents have a fact right at their beginning
_ENDS = ("", "", ".")


def scattered_facts(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    if not request.symbols:
        raise NotMade("the tokenizer cannot write the values")
    text = request.supply.passage(num_chars)
    if len(text) < num_chars:
        raise NotMade("the text is used up")
    found = [word for _, word in words(text) if len(word) >= _LEAST_LETTERS]
    if len(set(found)) < _FEWEST_DIFFERENT:
        raise NotMade("too few different words")
    of_words = (_FEWEST_WORDS + _MOST_WORDS) / 2 * (1 + sum(map(len, found)) / len(found))
    number = min(request.questions, int(request.asked_chars / (2 * (of_words + request.name_cost * len(SAMPLE_NAME)))))
    if number < 1:
        raise NotMade("too short for a question")
    cues = _cues(number, found, rng)
    values = _values(number, request, rng)
    end = _ENDS[int(rng.integers(len(_ENDS)))]
    told = rng.random(number)
    if rng.random() < _AT_THE_BEGINNING:
        told[0] = 0
    asked = told + (1 - told) * rng.random(number)
    asked[rng.random(number) < _AT_THE_END] = 1
    asked[-1] = 1  # a document ends with a question
    events = sorted([(float(told[i]), 0, i) for i in range(number)] + [(float(asked[i]), 1, i) for i in range(number)])
    writing = Writing(text)
    evidence = [0] * number
    last: list[Turn] = []
    for place, is_question, i in events:
        if not is_question:
            evidence[i] = writing.line(f"{cues[i]} {values[i]}{end}", place)
            continue
        turn = Turn(cues[i], f" {values[i]}", evidence[i], end)
        if place < 1:
            writing.turn(turn, place)
        else:
            last.append(turn)
    return Draft(
        before=writing.finish(),
        spare=request.supply.passage(2 * num_chars)[num_chars:],
        num_used=num_chars,
        doc_ids=request.supply.doc_ids(num_chars),
        turns=in_some_order(last, rng),
        answers=tuple(writing.answers),
        invented=tuple(writing.invented),
        asks_invented=True,
    )


def _cues(number: int, found: list[str], rng: np.random.Generator) -> list[str]:
    """The words before each value. All differ; those of a pair differ in one word."""
    cues: dict[str, None] = {}
    drawn: list[str] = []
    while len(cues) < number:
        if len(cues) % 2 and drawn:
            drawn = list(drawn)
            drawn[int(rng.integers(len(drawn)))] = found[int(rng.integers(len(found)))]
        else:
            size = int(rng.integers(_FEWEST_WORDS, _MOST_WORDS + 1))
            drawn = [found[i] for i in rng.integers(0, len(found), size).tolist()]
        cues[" ".join(drawn)] = None
    return list(cues)


def _values(number: int, request: Request, rng: np.random.Generator) -> list[str]:
    """Different values, each of a kind of its own."""
    return distinct(lambda: value_kind(rng, request.symbols, number)(), number)
