"""The advice from the rows of all ways: `serving_advice.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data_schemas.serving_advice import ServingAdvice, ServingWay
from tasks.advise.prices import Prices
from tasks.advise.results import OnKind, by_kind, fewest_differing
from tasks.advise.routing import FEWEST_DOCUMENTS, Route, make_routes
from tasks.advise.rows import AnswerRow
from tasks.advise.sentences import kind_advice, overall


@dataclass(frozen=True)
class Measured:
    """Ways, and the rows of each by name: on the same questions, in the same order. Routes are part of both."""

    ways: tuple[ServingWay, ...]
    rows: Mapping[str, Sequence[AnswerRow]]
    notes: tuple[str, ...] = ()

    @property
    def all_rows(self) -> Iterable[AnswerRow]:
        return (row for way in self.ways for row in self.rows[way.name])


@dataclass(frozen=True)
class Origin:
    """What the advice is about, for its file."""

    corpus: str
    checkpoint: str | None
    questions_from: Literal["qa_file", "documents"]


def with_routes(measured: Measured, seed: int) -> Measured:
    """`measured` and the routes that it allows, with a note on each."""
    if len({row.document_id for row in measured.all_rows}) < FEWEST_DOCUMENTS:
        left_out = "route is left out: its threshold is chosen on other documents than it is measured on, and all questions are on one."
        return replace(measured, notes=(*measured.notes, left_out))
    made = make_routes(measured.ways, measured.rows, seed)
    routes = [route for route in made if 0 < route.share_long < 1]
    always = [
        f"{route.way.name} is left out: the best threshold {'always' if route.share_long else 'never'} asks {route.way.long}, so it is no "
        "way of its own."
        for route in made
        if route not in routes
    ]
    rows = dict(measured.rows) | {route.way.name: route.rows for route in routes}
    ways = (*measured.ways, *(route.way for route in routes))
    return Measured(ways, rows, (*measured.notes, *always, *map(_route_note, routes)))


def _route_note(route: Route) -> str:
    first, second = route.of_halves
    return (
        f"{route.way.name} asks {route.way.cheap} first and {route.way.long} where the mean log-probability of the first answer is below "
        f"the threshold; {route.share_long:.0%} of the questions went on. Each half of the documents was measured with the threshold that "
        f"the other half chose ({second:.3g} and {first:.3g}); {route.way.threshold:.3g} is chosen on all."
    )


def make_advice(
    measured: Measured, origin: Origin, prices: Prices, *, confidence: float, seed: int, currency: str = ""
) -> ServingAdvice:
    """Results, comparisons and sentences. Ways and kinds keep their order."""
    on_kinds = [OnKind(kind, measured.ways, rows, prices, confidence, seed) for kind, rows in by_kind(measured.rows).items()]
    advice = tuple(map(kind_advice, on_kinds))
    arms = tuple(dict.fromkeys(way.arm for way in measured.ways))
    return ServingAdvice(
        corpus=origin.corpus,
        checkpoint=origin.checkpoint,
        questions_from=origin.questions_from,
        confidence=confidence,
        ways=measured.ways,
        results=tuple(result for on in on_kinds for result in on.results.values()),
        comparisons=tuple(comparison for on in on_kinds for comparison in on.comparisons.values()),
        advice=advice,
        overall=overall(on_kinds, advice),
        currency=currency,
        note="\n".join([*measured.notes, _power(on_kinds, confidence), *_unasked(measured), *prices.notes(arms)]),
    )


def _power(on_kinds: Sequence[OnKind], confidence: float) -> str:
    """How many documents a difference takes at least: the questions on one of them count together."""
    num_ways = len(on_kinds[0].ways)
    fewest = fewest_differing(num_ways, confidence)
    counts = [on.num_documents for on in on_kinds]
    too_few = " There are fewer, so no difference can be shown: ask about more documents." if max(counts) < fewest else ""
    return (
        f"With {num_ways} ways, a difference between two is shown if one answers better on at least {fewest} documents and worse on none; "
        f"there are {' to '.join(map(str, sorted({min(counts), max(counts)})))} documents for each kind.{too_few}"
    )


def _unasked(measured: Measured) -> Iterable[str]:
    """The questions that could not be asked in some way, with counts and the first reason."""
    for way in measured.ways:
        rows = measured.rows[way.name]
        left = [row.why_not for row in rows if not row.is_asked]
        if left:
            yield f"{way.name}: {len(left)} of {len(rows)} questions could not be asked and count as wrong, such as: {left[0].rstrip('.')}."


def told_advice(sentence: str, way: ServingWay, origin: Origin, confidence: float) -> ServingAdvice:
    """The advice where the lengths of the documents alone tell it, so that nothing is asked."""
    return ServingAdvice(
        corpus=origin.corpus,
        checkpoint=origin.checkpoint,
        questions_from=origin.questions_from,
        confidence=confidence,
        ways=(way,),
        results=(),
        comparisons=(),
        advice=(),
        overall=sentence,
        note="No question was asked: the lengths of the documents tell it.",
    )
