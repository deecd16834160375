"""Where a search starts, and what it has to beat: the closed forms, as a factor for each pair and the factor on cosine and sine.

NTK at a critical pair c (LongRoPE2, section 3.1) is NTK with the base that gives the factor s at pair c instead of at the last one:
factor_i = s^(i / c), the base is theta * s^(P / c). With the pair at which a base is really undertrained, it needs no search.
"""

from __future__ import annotations

import numpy as np

from data_schemas.rope_search import Form
from tasks.model.rope_frequencies import default_frequencies, scaled_frequencies
from tasks.rope_search.space import Candidate, Genome, RopeSpace

NTK_CRITICAL: Form = "ntk_critical"
# YaRN scaled for so many times the target, as `model.rope_length` has it: far needles gain by it, and the text loses a little.
LONGER_YARN: dict[Form, float] = {"yarn_1.25": 1.25, "yarn_1.5": 1.5, "yarn_2": 2.0}
CLOSED_FORMS: tuple[Form, ...] = ("yarn", *LONGER_YARN, "ntk", "linear", "dynamic", "llama3")
_CRITICAL_STEPS = (-6, -4, -2, 0, 2, 4, 6)  # of the pairs that are measured first, around the theoretical one


def critical_theta(space: RopeSpace, critical: int) -> float:
    """`rope_theta` of NTK at pair `critical`."""
    return float(space.theta * space.extension ** (space.num_pairs / critical))


def ntk_critical(space: RopeSpace, critical: int) -> Candidate:
    """NTK at pair `critical`."""
    return Candidate(tuple(float(f) for f in space.extension ** (np.arange(space.num_pairs) / critical)), 1.0)


def scaled_length(space: RopeSpace, form: Form) -> int:
    """The tokens that a closed form is scaled for."""
    return round(LONGER_YARN.get(form, 1.0) * space.target_length)


def closed_form(space: RopeSpace, method: Form) -> Candidate:
    """One of `CLOSED_FORMS`, as a plan of that method computes it."""
    scaled_for = scaled_length(space, method)
    parameters = {
        "rope_type": "yarn" if method in LONGER_YARN else method,
        "rope_theta": space.theta,
        "factor": scaled_for / space.original_length,
        "original_max_position_embeddings": space.original_length,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    if method == "ntk":
        return ntk_critical(space, space.num_pairs - 1)
    dim = 2 * space.num_pairs
    scaled, attention = scaled_frequencies(parameters, dim, space.original_length, scaled_for)
    return Candidate(tuple(float(f) for f in default_frequencies(space.theta, dim) / scaled), attention)


def critical_candidates(space: RopeSpace) -> list[int]:
    """The pairs at which NTK is measured first, ascending."""
    low, high = space.critical_bounds
    middle = min(space.theoretical_critical, high)
    return sorted({min(max(middle + step, low), high) for step in _CRITICAL_STEPS})


def critical_neighbours(space: RopeSpace, best: int, known: list[int]) -> list[int]:
    """The pairs beside the best one that were not measured yet."""
    low, high = space.critical_bounds
    return [pair for pair in (best - 1, best + 1) if low <= pair <= high and pair not in known]


def seed_genomes(space: RopeSpace, critical: int) -> list[Genome]:
    """The first candidates of the space. `critical`: the measured critical pair."""
    yarn, *longer = (closed_form(space, method) for method in ("yarn", *LONGER_YARN))
    rising = np.asarray(yarn.factors)
    pairs, split = np.arange(space.num_pairs), float(critical)
    usual = space.longrope_attention
    seeds = [space.fitted(form.factors, form.attention) for form in (yarn, *longer)]
    seeds += [space.fitted(closed_form(space, method).factors, usual) for method in ("linear", "ntk")]
    for top in (1.0, space.upper**0.25):
        highest = top * space.extension
        seeds.append(space.fitted(np.minimum(highest ** (pairs / critical), highest), usual, split))
    # YaRN's shape, also with a higher plateau. Small models want more than its factor on cosine and sine, which was fitted to large ones.
    seeds += [space.fitted(rising**power, 1 + 1.4 * (yarn.attention - 1), split) for power in (1.0, 1.2)]
    return list(dict.fromkeys(seeds))
