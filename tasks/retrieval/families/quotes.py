"""Questions about sentences of real text, which is not changed: what holds a word, what comes next, what is missing, how it goes on.

What is asked about is nearest to a random depth, so evidence is spread evenly over the text. A quotation that occurs twice is never
asked about. What one question or its answer shows, no other one shows: else an answer could be copied from the question before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.retrieval.draft import Draft, NotMade, Turn
from tasks.retrieval.families.asking import in_some_order
from tasks.retrieval.families.request import Request
from tasks.retrieval.stretches import Stretch, is_long_word, nearest, opening, stretches, words

_QUOTED, _ANSWERED, _CONTINUED, _FILLED = 48, 60, 90, 120  # most characters
_TRIES = 8  # of sentences after the one at a depth
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


Span = tuple[int, int]
Asked = tuple[Turn, tuple[Span, ...]]  # and the spans of the text that question and answer show
Ask = Callable[[_Context, int, float], Asked | None]  # about a stretch, with a random number


def keyword(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    """A rare word is given, and how the sentence with it begins is asked for."""
    return _quotes(_by_keyword, request, num_chars, rng)


def position(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    """The beginning of a sentence is given, and that of the next or the previous one is asked for."""
    return _quotes(_by_neighbour, request, num_chars, rng)


def fill_in(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    """A quotation with a gap is given, and the word in the gap is asked for."""
    return _quotes(_by_gap, request, num_chars, rng)


def repeated_opening(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    """A passage begins again, and its continuation is asked for."""
    return _quotes(_by_opening, request, num_chars, rng)


def _quotes(ask: Ask, request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    whole = request.supply.passage(num_chars + _MOST_SPARE)
    if len(whole) < num_chars:
        raise NotMade("the text is used up")
    text = whole[:num_chars]
    context = _Context(text, whole, stretches(text))
    turns: list[Turn] = []
    shown: list[Span] = []
    num_asked = 0
    if len(context.found) > 2:
        for depth, drawn in rng.random((4 * request.questions, 2)).tolist():
            if (asked := _asked(ask, context, depth, drawn, shown)) is None:
                continue
            turn, spans = asked
            num_asked += len(turn.question) + len(turn.answer) + 1
            if len(turns) == request.questions or num_asked > request.asked_chars:
                break
            turns.append(turn)
            shown += spans
    if not turns:
        raise NotMade("no sentence that can be asked about")
    return Draft(
        before=text,
        spare=whole[num_chars:],
        num_used=num_chars,
        doc_ids=request.supply.doc_ids(num_chars),
        turns=in_some_order(turns, rng),
    )


def _asked(ask: Ask, context: _Context, depth: float, drawn: float, shown: list[Span]) -> Asked | None:
    first = nearest(context.found, int(depth * len(context.text)))
    for number in range(first, min(first + _TRIES, len(context.found))):
        if (asked := ask(context, number, drawn)) is not None and not _overlap(asked[1], shown):
            return asked
    return None


def _overlap(spans: Sequence[Span], others: Sequence[Span]) -> bool:
    return any(start < other_end and other_start < end for start, end in spans for other_start, other_end in others)


def _by_keyword(context: _Context, number: int, drawn: float) -> Asked | None:
    text = context.of(number)
    answer = opening(text, _ANSWERED)
    found = words(text)
    rare = [word for _, word in found if is_long_word(word) and context.is_unique(word)]
    for length in range(2, _MOST_WORDS + 1):
        if not rare:  # not one word alone: some in a row
            runs = zip(found, found[length - 1 :], strict=False)
            rare = [run for (a, _), (b, last) in runs if context.is_unique(run := text[a : b + len(last)])]
    rare = [word for word in rare if word not in answer] or [
        word for word in rare if word != answer
    ]  # best: a word that is not shown
    if not rare:
        return None
    stretch = context.found[number]
    return Turn(f"<<{rare[int(drawn * len(rare))]}>>", f" {answer}", stretch.start), ((stretch.start, stretch.end),)


def _by_neighbour(context: _Context, number: int, drawn: float) -> Asked | None:
    """`number` is the sentence asked for; the given one is before it or after it."""
    given, sign = (number - 1, ">>") if drawn < 0.5 else (number + 1, "<<")
    if not 0 <= given < len(context.found):
        return None
    quotation, answer = opening(context.of(given), _QUOTED), opening(context.of(number), _ANSWERED)
    if quotation == answer or not context.is_unique(quotation):
        return None
    places = context.found[given], context.found[number]
    spans = tuple((stretch.start, stretch.end) for stretch in places)
    return Turn(f"{quotation} {sign}", f" {answer}", places[1].start), spans


def _by_gap(context: _Context, number: int, drawn: float) -> Asked | None:
    quotation = opening(context.of(number), _FILLED)
    inner = [(place, word) for place, word in words(quotation)[2:-1] if is_long_word(word)]
    if not inner or not context.is_unique(quotation):
        return None
    place, word = inner[int(drawn * len(inner))]
    question = f"{quotation[:place]}____{quotation[place + len(word) :]} ::"
    stretch = context.found[number]
    return Turn(question, f" {word}", stretch.start + place), ((stretch.start, stretch.end),)


def _by_opening(context: _Context, number: int, drawn: float) -> Asked | None:
    start = context.found[number].start
    first = opening(context.text[start : start + 2 * _QUOTED], _QUOTED)
    rest = opening(context.text[start + len(first) : start + len(first) + 2 * _CONTINUED], _CONTINUED)
    if len(rest.strip()) < _QUOTED // 2 or not context.is_unique(first):
        return None
    return Turn(first, rest, start + len(first)), ((start, start + len(first) + len(rest)),)
