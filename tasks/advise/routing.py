"""`route`: the cheap way is asked first, and the long one only where the model's own answer is unlikely.

How unlikely is a threshold on the mean log-probability of the cheap answer's tokens. It is chosen to answer as many questions as
possible, and of equal ones to read the fewest tokens. A threshold that is measured on the questions that chose it looks better than it is.
So documents are split into two halves, and each half is measured with the threshold that the other half chose. The threshold that is
published is chosen on all questions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_schemas.serving_advice import ServingWay
from tasks.advise.rows import AnswerRow

FEWEST_DOCUMENTS = 2  # one in each half

_EPSILON = 1e-9


@dataclass(frozen=True)
class Route:
    """`way` with its threshold, the rows measured with the other half's thresholds, and these two thresholds."""

    way: ServingWay
    rows: tuple[AnswerRow, ...]
    of_halves: tuple[float, float]
    share_long: float  # of the questions that were asked in the long way too


def make_routes(ways: Sequence[ServingWay], rows: Mapping[str, Sequence[AnswerRow]], seed: int) -> list[Route]:
    """One route for each model with a full way: its best way with passages first. Ways without rows are no part of it."""
    routes = []
    for long in (way for way in ways if way.way == "full"):
        cheap = [way for way in ways if way.way == "chunks" and way.arm == long.arm]
        if cheap:
            best = max(cheap, key=lambda way: (_mean_score(rows[way.name]), -_mean_tokens(rows[way.name])))
            routes.append(make_route(best, long, rows[best.name], rows[long.name], seed))
    return routes


def make_route(
    cheap: ServingWay, long: ServingWay, of_cheap: Sequence[AnswerRow], of_long: Sequence[AnswerRow], seed: int
) -> Route:
    """Rows of both ways are on the same questions, in the same order; these are on two documents at least."""
    pairs = list(zip(of_cheap, of_long, strict=True))
    name = f"route/{cheap.arm}"
    half_of = halves([first.document_id for first, _ in pairs], seed)
    chosen = [best_threshold([pair for pair in pairs if half_of[pair[0].document_id] == half]) for half in (0, 1)]
    rows, num_long = [], 0
    for first, second in pairs:
        threshold = chosen[1 - half_of[first.document_id]]
        num_long += asks_long(first, threshold) and second.is_asked
        rows.append(_routed(name, first, second, threshold))
    way = ServingWay(
        name=name,
        way="route",
        arm=cheap.arm,
        window=long.window,
        retrieval=cheap.retrieval,
        cheap=cheap.name,
        long=long.name,
        threshold=best_threshold(pairs),
    )
    return Route(way, tuple(rows), (chosen[0], chosen[1]), num_long / len(pairs))


def halves(document_ids: Sequence[str], seed: int) -> dict[str, int]:
    """0 or 1 for each document, half of them each, in the order of hashes."""
    ordered = sorted(set(document_ids), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return {name: place % 2 for place, name in enumerate(ordered)}


def best_threshold(pairs: Sequence[tuple[AnswerRow, AnswerRow]]) -> float:
    """Of all thresholds between two answers' log-probabilities the one with the highest score, then the fewest tokens read.

    Without questions it is 0, above which no log-probability lies: always the long way.
    """
    weighed = sorted(
        ((cheap.own_logprob, cheap, long) for cheap, long in pairs if cheap.own_logprob is not None), key=lambda one: one[0]
    )
    if not weighed:
        return 0.0
    logprobs = np.array([logprob for logprob, _, _ in weighed])
    values = np.unique(logprobs)
    candidates = np.array([values[0] - 1.0, *(values[:-1] + values[1:]) / 2, min(0.0, values[-1] + _EPSILON)])
    num_below = np.searchsorted(logprobs, candidates)  # of these many answers the long way is asked
    gained = [long.score - cheap.score if long.is_asked else 0.0 for _, cheap, long in weighed]
    read = [long.prompt_tokens if long.is_asked else 0 for _, _, long in weighed]
    scores = np.round(np.cumsum([0.0, *gained]), 9)[num_below]
    tokens = np.cumsum([0, *read])[num_below]
    best = np.lexsort((tokens, -scores))[0]  # of equal ones the first
    return float(candidates[best])


def asks_long(cheap: AnswerRow, threshold: float) -> bool:
    """Where the cheap answer is unlikely, or there is none."""
    return cheap.own_logprob is None or cheap.own_logprob < threshold


def _routed(name: str, cheap: AnswerRow, long: AnswerRow, threshold: float) -> AnswerRow:
    """A question's row. Its control is not routed: without evidence, the log-probability says something else."""
    bare: dict[str, Any] = {"way": name, "control_score": None, "control_logprob": None, "control_output": None}
    if not asks_long(cheap, threshold) or not long.is_asked:
        return replace(cheap, **bare)
    costs: dict[str, Any] = {
        "prompt_tokens": cheap.prompt_tokens + long.prompt_tokens,
        "answer_tokens": cheap.answer_tokens + long.answer_tokens,
        "seconds": cheap.seconds + long.seconds,
    }
    return replace(long, own_logprob=cheap.own_logprob, **bare, **costs)


def _mean_score(rows: Sequence[AnswerRow]) -> float:
    return round(math.fsum(row.score for row in rows) / len(rows), 9)


def _mean_tokens(rows: Sequence[AnswerRow]) -> float:
    return math.fsum(row.prompt_tokens for row in rows) / len(rows)
