"""What was measured, and how candidates compare.

The score of a sample is in nats a token: needle-driven (answers only) plus `text_weight` times that of the text. Lower is better.
Candidates are compared on the same samples, so that a sample's difficulty cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.rope_search.space import Candidate


@dataclass(frozen=True)
class Measured:
    """Nats a token of the answers and of the text on the first samples, in their order."""

    answers: tuple[float, ...]
    text: tuple[float, ...]

    def scores(self, text_weight: float) -> tuple[float, ...]:
        return tuple(a + text_weight * t for a, t in zip(self.answers, self.text, strict=True))


# Measures each candidate on samples `first` to `stop` - 1; the results in the order of the candidates. The word is why, for people.
Measure = Callable[[Sequence[Candidate], int, int, str], Sequence[Measured]]


@dataclass(frozen=True)
class Scored:
    """A candidate of the space and its scores on the first `len(scores)` samples."""

    genome: tuple[float, ...]
    candidate: Candidate
    generation: int
    scores: tuple[float, ...]

    def mean(self, count: int | None = None) -> float:
        """Over the first `count` samples."""
        return float(np.mean(self.scores[:count]))


def estimate(scored: Scored, incumbent: Scored) -> float:
    """The mean over all samples, as far as known: a candidate with few is compared with the incumbent on those few."""
    count = len(scored.scores)
    return incumbent.mean() + (scored.mean() - incumbent.mean(count))


def ranked(results: Sequence[Scored], incumbent: Scored) -> list[Scored]:
    """Best first; equal ones by digest, so that the order never depends on who measured first."""
    return sorted(results, key=lambda scored: (estimate(scored, incumbent), scored.candidate.digest))
