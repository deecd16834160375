"""The next candidates: a pure function of (seed, generation, results so far).

Each child has a generator of its own, of (seed, generation, number of the child). It recombines two of the best results so far and
moves the outcome a little; steps get smaller from generation to generation. The results come in an order that does not depend on when
they were measured, so the number of workers and restarts change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.rope_search.scores import Scored, ranked
from tasks.rope_search.space import BELOW, Floats, Genome, RopeSpace

NUM_PARENTS = 4
_SHRINK, _SMALLEST = 0.85, 0.2  # of steps, a generation
_STEP_CRITICAL, _STEP_BELOW, _STEP_ABOVE, _STEP_FULL, _STEP_ATTENTION = 2.0, 0.08, 0.15, 0.15, 0.06
_SHARE_MOVED = 0.35  # of the numbers, in one child: a move of all at once rarely improves
_SHARE_TOGETHER = 0.5  # of the children move the level above the critical pair; as many move the factor on cosine and sine
_TRIES = 20


def propose(
    space: RopeSpace, seed: int, generation: int, results: Sequence[Scored], incumbent: Scored, count: int
) -> list[Genome]:
    """At most `count` candidates that are not among the results; fewer only if none can be found near the best ones."""
    parents = ranked(results, incumbent)[:NUM_PARENTS]
    known = {scored.candidate.digest for scored in results}
    proposed: list[Genome] = []
    for child in range(count):
        rng = np.random.default_rng([seed, generation, child])
        for _ in range(_TRIES):
            genome = space.repaired(_moved(space, _recombined(parents, rng), generation, rng))
            if (digest := space.candidate(genome).digest) not in known:
                known.add(digest)
                proposed.append(genome)
                break
    return proposed


def _recombined(parents: Sequence[Scored], rng: np.random.Generator) -> Floats:
    """A point on the line through two parents, a little beyond each of them; better parents are chosen more often."""
    weights = 1.0 / np.arange(1, len(parents) + 1)
    first, second = (np.asarray(parents[i].genome) for i in rng.choice(len(parents), 2, p=weights / weights.sum()))
    return np.asarray(first + rng.uniform(-0.3, 0.9) * (second - first), dtype=np.float64)


def _moved(space: RopeSpace, point: Floats, generation: int, rng: np.random.Generator) -> Floats:
    step = max(_SMALLEST, _SHRINK**generation)
    attention = step * _STEP_ATTENTION * rng.normal(size=len(point) - space.size) * (rng.random() < _SHARE_TOGETHER)
    if space.kind == "full":
        # A bump over neighbouring pairs, and the whole curve up or down from there on.
        centre, width = rng.uniform(0, space.num_pairs), rng.uniform(1, space.num_pairs / 4)
        pairs = np.arange(space.num_pairs)
        bump = np.exp(-(((pairs - centre) / width) ** 2))
        ramp = 1 / (1 + np.exp(-(pairs - centre) / width))
        move = step * _STEP_FULL * (rng.normal() * bump + rng.normal() * ramp)
        return np.asarray(point + np.concatenate([move, attention]), dtype=np.float64)
    steps = np.concatenate([[_STEP_CRITICAL], np.full(len(BELOW), _STEP_BELOW), np.full(space.num_knots, _STEP_ABOVE)])
    moves = rng.normal(size=space.size) * (rng.random(space.size) < _SHARE_MOVED)
    # The knots above move together too: their level counts more than their shape.
    together = rng.normal() * (rng.random() < _SHARE_TOGETHER)
    level = np.concatenate([np.zeros(1 + len(BELOW)), np.full(space.num_knots, together)])
    return np.asarray(point + np.concatenate([step * steps * (moves + level), attention]), dtype=np.float64)
