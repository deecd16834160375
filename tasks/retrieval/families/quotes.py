"""Questions about sentences of real text, which is not changed: what holds a word, what comes next, what is missing, how it goes on.

What is asked about is nearest to a random depth, so evidence is spread evenly over the text. A quotation that occurs twice is never
asked about. No question and no other answer shows an answer, or half of it in one piece: else it could be copied from nearby.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np

from tasks.retrieval.draft import Draft, NotMade, Turn
from tasks.retrieval.families.asking import in_some_order
from tasks.retrieval.families.request import Request
from tasks.retrieval.stretches import Stretch, is_long_word, nearest, needs_no_spaces, opening, stretches, words

_QUOTED, _ANSWERED, _CONTINUED, _FILLED = 48, 60, 90, 120  # most characters
_TRIES = 8  # of sentences after the one at a depth
_TRIES_EACH = 8  # of questions about one sentence
_GAP = "____"
_LEAST_SHOWN = 0.5  # of an answer: so much of it in one piece is too much
_MOST_SPARE = 4000
_MOST_WORDS = 3  # that stand for one rare word


@dataclass(frozen=True)
class _Context:
    """`text` is what is asked about; `whole` goes on with what may fill the document up."""

    text: str
    whole: str
    found: list[Stretch]

    def of(self, number: int) -> str:
        return self.text[self.found[number].start : self.found[number].end]

    def is_unique(self, quotation: str) -> bool:
        return bool(quotation) and self.whole.find(quotation, self.whole.find(quotation) + 1) < 0


_Item = TypeVar("_Item")
Span = tuple[int, int]
Asked = tuple[Turn, tuple[Span, ...]]  # and the spans of the text that question and answer show
Ask = Callable[[_Context, int, float], Iterator[Asked]]  # questions about a stretch, the first one by a random number


@dataclass
class _Shown:
    """The questions and answers of a document so far. `least` is the share of an answer that counts as shown."""

    least: float
    spans: list[Span] = field(default_factory=list)
    text: str = ""
    answers: list[str] = field(default_factory=list)

    def allows(self, turn: Turn) -> bool:
        """Whether nothing shows the new answer, and the new question and answer show none of the others."""
        question, answer = turn.question.casefold(), turn.answer.strip().casefold()
        if _shows(f"{self.text}\n{question}", answer, self.least):
            return False
        new = f"{turn.question}{turn.answer}".casefold()
        return not any(_shows(new, other, self.least) for other in self.answers)

    def add(self, asked: Asked) -> None:
        turn, spans = asked
        self.spans += spans
        self.text += f"\n{turn.question}{turn.answer}".casefold()
        self.answers.append(turn.answer.strip().casefold())


def _shows(text: str, answer: str, least: float) -> bool:
    """Whether `text` has a part of the answer that is at least this share of it."""
    size = max(1, math.ceil(least * len(answer)))
    half = max(1, size // 2)
    if not any(answer[i : i + half] in text for i in range(0, len(answer) - half + 1, half)):
        return False  # every piece of that size has such a part
    return any(answer[i : i + size] in text for i in range(len(answer) - size + 1))


def keyword(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    """A rare word is given, and how the sentence with it begins is asked for."""
    return _quotes(_by_keyword, request, num_chars, rng)


def position(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    """The beginning of a sentence is given, and that of the next or the previous one is asked for."""
    return _quotes(_by_neighbour, request, num_chars, rng)


def fill_in(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    """A quotation with a gap is given, and the word in the gap is asked for."""
    return _quotes(_by_gap, request, num_chars, rng, least_shown=1.0)


def repeated_opening(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    """A passage begins again, and its continuation is asked for."""
    return _quotes(_by_opening, request, num_chars, rng)


def _quotes(ask: Ask, request: Request, num_chars: int, rng: np.random.Generator, least_shown: float = _LEAST_SHOWN) -> Draft:
    whole = request.supply.passage(num_chars + _MOST_SPARE)
    if len(whole) < num_chars:
        raise NotMade("the text is used up")
    text = whole[:num_chars]
    context = _Context(text, whole, stretches(text))
    turns: list[Turn] = []
    shown = _Shown(least_shown)
    num_asked = 0
    if len(context.found) > 2:
        for depth, drawn in rng.random((4 * request.questions, 2)).tolist():
            if (asked := _asked(ask, context, depth, drawn, shown)) is None:
                continue
            turn = asked[0]
            num_asked += len(turn.question) + len(turn.answer) + 1
            if len(turns) == request.questions or num_asked > request.asked_chars:
                break
            turns.append(turn)
            shown.add(asked)
    if not turns:
        raise NotMade("no sentence that can be asked about")
    return Draft(
        before=text,
        spare=whole[num_chars:],
        num_used=num_chars,
        doc_ids=request.supply.doc_ids(num_chars),
        turns=in_some_order(turns, rng),
    )


def _asked(ask: Ask, context: _Context, depth: float, drawn: float, shown: _Shown) -> Asked | None:
    first = nearest(context.found, int(depth * len(context.text)))
    for number in range(first, min(first + _TRIES, len(context.found))):
        for asked in islice(ask(context, number, drawn), _TRIES_EACH):
            if not _overlap(asked[1], shown.spans) and shown.allows(asked[0]):
                return asked
    return None


def _overlap(spans: Sequence[Span], others: Sequence[Span]) -> bool:
    return any(start < other_end and other_start < end for start, end in spans for other_start, other_end in others)


def _from(drawn: float, items: Sequence[_Item]) -> Iterator[_Item]:
    """All items, beginning with the one that the number from 0 to 1 draws."""
    first = int(drawn * len(items))
    yield from items[first:]
    yield from items[:first]


def _by_keyword(context: _Context, number: int, drawn: float) -> Iterator[Asked]:
    """By a long word that the text has once, or else by some words in a row."""
    text, stretch = context.of(number), context.found[number]
    answer = opening(text, _ANSWERED)
    found = words(text)
    rare = [word for _, word in found if is_long_word(word) and context.is_unique(word)]
    for length in range(2, _MOST_WORDS + 1):
        if not rare:
            runs = zip(found, found[length - 1 :], strict=False)
            rare = [run for (a, _), (b, last) in runs if context.is_unique(run := text[a : b + len(last)])]
    hidden = [word for word in rare if word not in answer]  # best: a word that is not in the answer
    for word in [*_from(drawn, hidden), *_from(drawn, [word for word in rare if word in answer])]:
        yield Turn(f"<<{word}>>", f" {answer}", stretch.start), ((stretch.start, stretch.end),)


def _by_neighbour(context: _Context, number: int, drawn: float) -> Iterator[Asked]:
    """`number` is the sentence asked for; the given one is before it or after it, with nothing in between."""
    for step, sign in _from(drawn, ((-1, ">>"), (1, "<<"))):
        if not 0 <= number + step < len(context.found):
            continue
        places = context.found[number + step], context.found[number]
        before, after = places if step < 0 else places[::-1]
        quotation, answer = opening(context.of(number + step), _QUOTED), opening(context.of(number), _ANSWERED)
        if context.text[before.end : after.start].strip() or quotation == answer or not context.is_unique(quotation):
            continue
        spans = tuple((stretch.start, stretch.end) for stretch in places)
        yield Turn(f"{quotation} {sign}", f" {answer}", places[1].start), spans


def _by_gap(context: _Context, number: int, drawn: float) -> Iterator[Asked]:
    """In place of a long word that stands alone, not in a name such as `is_empty`."""
    quotation, stretch = opening(context.of(number), _FILLED), context.found[number]
    if _GAP in quotation or not context.is_unique(quotation):
        return
    found = [(place, word) for place, word in words(quotation)[2:-1] if is_long_word(word)]
    for place, word in _from(drawn, found):
        before, after = quotation[:place], quotation[place + len(word) :]
        if needs_no_spaces(word) or not (_is_in_word(before[-1:]) or _is_in_word(after[:1])):
            yield Turn(f"{before}{_GAP}{after} ::", f" {word}", stretch.start + place), ((stretch.start, stretch.end),)


def _is_in_word(character: str) -> bool:
    return character == "_" or character.isalnum()


def _by_opening(context: _Context, number: int, drawn: float) -> Iterator[Asked]:
    start = context.found[number].start
    first = opening(context.text[start : start + 2 * _QUOTED], _QUOTED)
    rest = opening(context.text[start + len(first) : start + len(first) + 2 * _CONTINUED], _CONTINUED)
    if len(rest.strip()) >= _QUOTED // 2 and context.is_unique(first):
        yield Turn(first, rest, start + len(first)), ((start, start + len(first) + len(rest)),)
