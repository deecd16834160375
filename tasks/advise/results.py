"""From rows to advice: means with intervals, paired comparisons with the best way, and the cheapest way not shown to be worse.

Questions are paired, and those on one document count together (`tasks.evaluate.statistics.sampled`). The best way is the one with the
highest mean score in the same answers, and every other way is tested against it, with Holm's correction over these tests. That the best
one is chosen by the same answers does not matter for what is claimed: the truly best way is shown to be worse only if some way beats it by
chance, and each way has one test against it (multiple comparisons with the best, Hsu 1984). Each interval has the level at which its test
is done, so it excludes zero exactly where the corrected p-value is below 1 - confidence.

That a way is not shown to be worse does not say that it is as good. So the sentences give the interval of the difference, and a note how
many documents a difference needs at least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_schemas.serving_advice import QuestionKind, ServingWay, WayComparison, WayResult
from tasks.advise.prices import Prices
from tasks.advise.rows import AnswerRow
from tasks.evaluate.statistics.estimates import wilson_bounds
from tasks.evaluate.statistics.hypothesis_tests import holm, holm_levels
from tasks.evaluate.statistics.paired_differences import PairedDifference
from tasks.evaluate.statistics.sampled import Sampled

KINDS: tuple[QuestionKind, ...] = ("local", "far_apart", "spread", "given")
SAME_COST = 1.1  # ways that cost at most so much more than the cheapest cost about the same
_ARM_COSTS = {"base": 0, "scaling_only": 1, "fine_tuned": 2}  # of ways that read the same: without training first


@dataclass(frozen=True)
class OnKind:
    """All ways on the questions of one kind: rows of each way, on the same questions in the same order."""

    kind: QuestionKind
    ways: tuple[ServingWay, ...]
    rows: Mapping[str, Sequence[AnswerRow]]
    prices: Prices
    confidence: float
    seed: int

    @cached_property
    def results(self) -> dict[str, WayResult]:
        """By name of the way."""
        return {way.name: self._result(way) for way in self.ways}

    def _result(self, way: ServingWay) -> WayResult:
        rows = self.rows[way.name]
        asked = [row for row in rows if row.is_asked]
        scores = self._scores(way.name)
        quality = float(scores.values.mean())
        low, high = wilson_bounds(quality, scores.effective_prompts(quality * (1 - quality)), self.confidence)
        prompt_tokens, answer_tokens = _mean(r.prompt_tokens for r in asked), _mean(r.answer_tokens for r in asked)
        return WayResult(
            way=way.name,
            kind=self.kind,
            num_questions=len(rows),
            quality=quality,
            low=low,
            high=high,
            logprob=_mean_or_none(r.logprob for r in rows),
            control_quality=_mean_or_none(r.control_score for r in rows),
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            seconds=_mean(r.seconds for r in asked),
            price=self.prices.of_thousand(way.arm, prompt_tokens, answer_tokens),
        )

    @property
    def num_documents(self) -> int:
        """Documents that the questions are on: what the tests and intervals count."""
        return len({row.document_id for row in next(iter(self.rows.values()))})

    @property
    def best(self) -> str:
        """Of equal scores the higher log-probability of the right answers, then the lower cost."""
        return max(self.by_cost, key=self._worth).name  # of equal ones the first

    def _worth(self, way: ServingWay) -> tuple[float, float]:
        result = self.results[way.name]
        return round(result.quality, 9), -math.inf if result.logprob is None else round(result.logprob, 9)

    @cached_property
    def by_cost(self) -> list[ServingWay]:
        """Cheapest first: by price where every way has one, else by the tokens read and written."""
        return sorted(self.ways, key=lambda way: (round(self._cost(way.name), 6), _ARM_COSTS[way.arm], way.name))

    def _cost(self, name: str) -> float:
        """Money where every way has a price, else tokens read and written; infinite where no question could be asked."""
        result = self.results[name]
        if not any(row.is_asked for row in self.rows[name]):
            return math.inf
        if result.price is not None and all(one.price is not None for one in self.results.values()):
            return result.price
        return result.prompt_tokens + result.answer_tokens

    @cached_property
    def comparisons(self) -> dict[str, WayComparison]:
        """Every other way against the best one, by name."""
        others = [way.name for way in self.ways if way.name != self.best]
        paired = [PairedDifference.of(self._scores(name), self._scores(self.best), seed=self.seed) for name in others]
        p_values = [difference.p_value for difference in paired]
        levels = holm_levels(p_values, 1 - self.confidence)
        found = {}
        for name, difference, p_holm, level in zip(others, paired, holm(p_values), levels, strict=True):
            interval = difference.interval(1 - level)
            assert interval.low is not None
            assert interval.high is not None
            found[name] = WayComparison(
                kind=self.kind,
                way=name,
                against=self.best,
                difference=interval.value,
                low=interval.low,
                high=interval.high,
                p_holm=p_holm,
                cost_ratio=self._cost_ratio(self.best, name),
            )
        return found

    def is_worse(self, name: str) -> bool:
        """Whether a way was shown to be worse than the best one."""
        return (
            name != self.best and self.comparisons[name].p_holm < 1 - self.confidence and self.comparisons[name].difference < 0
        )

    @property
    def advised(self) -> ServingWay:
        """The cheapest way that was not shown to be worse than the best. What could not be asked at all is never the cheapest.

        Of ways that cost about the same it is the one with the best answers; of equal ones the cheapest. A trained model is advised only
        where none of these ways does without.
        """
        candidates = [way for way in self.by_cost if not self.is_worse(way.name)]
        most = SAME_COST * self._cost(candidates[0].name)
        alike = [way for way in candidates if self._cost(way.name) <= most]
        return max([way for way in alike if way.arm != "fine_tuned"] or alike, key=self._worth)

    def _cost_ratio(self, expensive: str, cheap: str) -> float:
        read = self.results[cheap].prompt_tokens
        return self.results[expensive].prompt_tokens / read if read else 0.0

    def _scores(self, name: str) -> Sampled:
        rows = self.rows[name]
        _, documents = np.unique([row.document_id for row in rows], return_inverse=True)
        return Sampled(np.array([row.score for row in rows], np.float64), documents)


def fewest_differing(num_ways: int, confidence: float) -> int:
    """Documents on which a way must answer better than another, and worse on none, to be told apart from it by flipped signs.

    The smallest n with 2^(1 - n) < (1 - confidence) / (num_ways - 1), Holm's first level.
    """
    level = (1 - confidence) / max(1, num_ways - 1)
    return math.floor(1 - math.log2(level)) + 1


def by_kind(rows: Mapping[str, Sequence[AnswerRow]]) -> dict[QuestionKind, dict[str, list[AnswerRow]]]:
    """The rows of each way by kind of question; kinds without questions are left out."""
    found = {kind: {way: [row for row in of_way if row.kind == kind] for way, of_way in rows.items()} for kind in KINDS}
    return {kind: ways for kind, ways in found.items() if any(ways.values())}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else 0.0


def _mean_or_none(values: Iterable[float | None]) -> float | None:
    listed = [value for value in values if value is not None]
    return math.fsum(listed) / len(listed) if listed else None
