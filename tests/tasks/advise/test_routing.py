"""The threshold of a route: chosen as by trying all, and on other documents than it is measured on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tasks.advise.advice import Measured, with_routes
from tasks.advise.routing import best_threshold
from tasks.advise.rows import AnswerRow
from tests.tasks.advise.rows_example import chunks, full, rows_of


def pairs_of(seed: int, num: int) -> list[tuple[AnswerRow, AnswerRow]]:
    """Some log-probabilities are equal, some answers have none, and some questions cannot be asked in the long way."""
    rng = np.random.default_rng(seed)
    made = []
    for cheap, long in zip(rows_of(chunks(), [0.0] * num, 10), rows_of(full(), [0.0] * num, 90), strict=True):
        logprob = None if rng.random() < 0.2 else -float(rng.integers(0, 6)) / 2
        why_not = "" if rng.random() < 0.8 else "too long"
        scores = rng.integers(0, 2, 2).astype(float)
        tokens = 0 if why_not else int(rng.integers(1, 99))
        made.append(
            (
                replace(cheap, own_logprob=logprob, score=scores[0]),
                replace(long, score=0.0 if why_not else scores[1], why_not=why_not, prompt_tokens=tokens),
            )
        )
    return made


def worth(pairs: list[tuple[AnswerRow, AnswerRow]], threshold: float) -> tuple[float, int]:
    """Right answers and tokens of the long way, one question after the other."""
    score, tokens = 0.0, 0
    for cheap, long in pairs:
        goes_on = long.is_asked and (cheap.own_logprob is None or cheap.own_logprob < threshold)
        score += long.score if goes_on else cheap.score
        tokens -= long.prompt_tokens if goes_on else 0
    return score, tokens


def test_the_threshold_is_the_best_of_all() -> None:
    for seed in range(40):
        pairs = pairs_of(seed, 1 + seed % 12)
        found = best_threshold(pairs)
        logprobs = {cheap.own_logprob for cheap, _ in pairs if cheap.own_logprob is not None}
        tried = [-math.inf, *(logprob + 1e-9 for logprob in logprobs if logprob < 0)]
        if logprobs:
            assert worth(pairs, found) == max(worth(pairs, threshold) for threshold in tried)
        else:
            assert found == 0.0


def test_questions_on_one_document_give_no_route() -> None:
    ways = (full("base"), chunks())
    rows = {way.name: rows_of(way, [1.0] * 8, 90, num_documents=1) for way in ways}
    measured = with_routes(Measured(ways, rows), seed=0)
    assert [way.way for way in measured.ways] == ["full", "chunks"]
    assert "route is left out: its threshold is chosen on other documents" in measured.notes[-1]
