"""The search itself: generations of candidates that race on the first samples, and the best of them on all.

    NTK at several pairs ─▶ the critical pair ─▶ seeds ─▶ generation 1, 2, … until the budget is spent
    a generation: every candidate on the first samples; the best few, if not worse than the incumbent there, on the rest

The incumbent of a generation is the best of all earlier ones, so what is measured does not depend on who is faster. Everything is a
function of the settings and of what `measure` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.rope_search.proposals import propose
from tasks.rope_search.scores import Measure, Measured, Scored, ranked
from tasks.rope_search.seeds import critical_candidates, critical_neighbours, ntk_critical, seed_genomes
from tasks.rope_search.space import Candidate, Genome, RopeSpace

# A candidate within this many nats of the incumbent on the first samples may still be better on all.
_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class RaceSettings:
    """`evaluations` counts the candidates measured, each once, however many samples it got."""

    evaluations: int
    generation_size: int
    first_samples: int
    samples: int
    finalists: int
    text_weight: float
    seed: int


@dataclass(frozen=True)
class Race:
    """The outcome: the measured critical pair, the best candidate, all candidates of the space, and how many were measured."""

    critical: int
    critical_means: dict[int, float]
    best: Scored
    results: tuple[Scored, ...]
    num_evaluations: int
    best_by_generation: tuple[float, ...]


Told = Callable[[int, int, Scored], None]  # generation, candidates measured so far, the incumbent


def fewest_evaluations(space: RopeSpace) -> int:
    """What the critical pair and the seeds take, and one child."""
    return len(critical_candidates(space)) + 2 + len(seed_genomes(space, space.theoretical_critical)) + 1


def most_passes(space: RopeSpace, settings: RaceSettings) -> int:
    """Forward passes that a search takes at most, with all finalists of every generation on all samples."""
    rest, size = settings.samples - settings.first_samples, settings.generation_size
    num_seeds = len(seed_genomes(space, space.theoretical_critical))
    # The critical pair may have no neighbours that were not measured, and then two more candidates are proposed.
    proposed = max(0, settings.evaluations - fewest_evaluations(space) + 3)
    generations = [num_seeds, *[size] * (proposed // size), proposed % size]
    num_finalists = sum(min(settings.finalists, num_candidates) for num_candidates in generations)
    return settings.evaluations * settings.first_samples + num_finalists * rest


def run_race(space: RopeSpace, settings: RaceSettings, measure: Measure, told: Told) -> Race:
    """Search until `settings.evaluations` candidates were measured, or nothing new is proposed."""
    racing = _Racing(space, settings, measure)
    critical = racing.find_critical()
    incumbent = racing.run(seed_genomes(space, critical), 0, None)
    history = [incumbent.mean()]
    told(0, racing.num_evaluations, incumbent)
    generation = 0
    while (left := settings.evaluations - racing.num_evaluations) > 0:
        generation += 1
        count = min(settings.generation_size, left)
        genomes = propose(space, settings.seed, generation, racing.results, incumbent, count)
        if not genomes:
            break
        incumbent = racing.run(genomes, generation, incumbent)
        history.append(incumbent.mean())
        told(generation, racing.num_evaluations, incumbent)
    return Race(critical, racing.critical_means, incumbent, tuple(racing.results), racing.num_evaluations, tuple(history))


def find_critical(
    space: RopeSpace, measure: Callable[[list[Candidate]], Sequence[Measured]], text_weight: float
) -> dict[int, float]:
    """The mean score of NTK at pairs around the theoretical critical one, and then beside the best of them. Lowest: the real one."""
    means: dict[int, float] = {}
    pairs = critical_candidates(space)
    while pairs:
        found = measure([ntk_critical(space, pair) for pair in pairs])
        for pair, measured in zip(pairs, found, strict=True):
            scores = measured.scores(text_weight)
            means[pair] = sum(scores) / len(scores)
        is_first = len(means) == len(pairs)
        best = min(means, key=lambda pair: (means[pair], pair))
        pairs = critical_neighbours(space, best, list(means)) if is_first else []
    return means


class _Racing:
    """Measures generations, and keeps their results."""

    def __init__(self, space: RopeSpace, settings: RaceSettings, measure: Measure) -> None:
        self._space, self._settings, self._measure = space, settings, measure
        self.results: list[Scored] = []
        self.critical_means: dict[int, float] = {}
        self.num_evaluations = 0

    def find_critical(self) -> int:
        """LongRoPE2's real critical dimension, as a pair."""

        def measure(candidates: list[Candidate]) -> Sequence[Measured]:
            self.num_evaluations += len(candidates)
            return self._measure(candidates, 0, self._settings.first_samples, "critical pair")

        self.critical_means = find_critical(self._space, measure, self._settings.text_weight)
        return min(self.critical_means, key=lambda pair: (self.critical_means[pair], pair))

    def run(self, genomes: Sequence[Genome], generation: int, incumbent: Scored | None) -> Scored:
        """Measure a generation; the best result so far. Without an incumbent the best on the first samples is measured in full."""
        settings = self._settings
        first = settings.first_samples
        candidates = [self._space.candidate(genome) for genome in genomes]
        scores = self._scores(candidates, 0, first, f"generation {generation}")
        self.num_evaluations += len(genomes)
        entered = [
            Scored(genome, candidate, generation, of_first)
            for genome, candidate, of_first in zip(genomes, candidates, scores, strict=True)
        ]
        order = sorted(entered, key=lambda scored: (scored.mean(), scored.candidate.digest))
        limit = float("inf") if incumbent is None else incumbent.mean(first) + _TOLERANCE
        finalists = [scored for scored in order[: settings.finalists] if scored.mean() <= limit]
        rest = self._scores([f.candidate for f in finalists], first, settings.samples, f"finalists of generation {generation}")
        complete = [
            Scored(f.genome, f.candidate, generation, f.scores + of_rest) for f, of_rest in zip(finalists, rest, strict=True)
        ]
        done = {scored.candidate.digest for scored in complete}
        self.results += complete + [scored for scored in entered if scored.candidate.digest not in done]
        contenders = complete + ([incumbent] if incumbent is not None else [])
        return ranked(contenders, contenders[0])[0]

    def _scores(self, candidates: Sequence[Candidate], first: int, stop: int, why: str) -> list[tuple[float, ...]]:
        if not candidates or stop <= first:
            return [()] * len(candidates)
        measured = self._measure(candidates, first, stop, why)
        return [of_one.scores(self._settings.text_weight) for of_one in measured]
