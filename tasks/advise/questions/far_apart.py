"""Facts far apart: two places of the document, at least half of it apart, answer the question together."""

from __future__ import annotations

import numpy as np

from tasks.advise.questions.draft import Draft, codes, names, places
from tasks.advise.questions.planting import plant

KEPT, CODE = "# The {name} is kept in the {place}.", "# The code of the {place} is {code}."
_EARLY, _LATE = (0.02, 0.2), (0.75, 0.95)  # where the two pieces stand, as shares of the document
_NUM_CHAINS = 3


def two_facts(text: str, rng: np.random.Generator) -> Draft:
    """Which code has the place in which a thing is kept. Two other things, in other places, are spread between."""
    things, rooms, numbers = names(_NUM_CHAINS, text, rng), places(_NUM_CHAINS, text, rng), codes(_NUM_CHAINS, text, rng)
    ends = [float(rng.uniform(*_EARLY)), float(rng.uniform(*_LATE))]
    if rng.random() < 0.5:
        ends.reverse()
    shares = [*ends, *rng.random(2 * (_NUM_CHAINS - 1)).tolist()]
    sentences = []
    for thing, room, number in zip(things, rooms, numbers, strict=True):
        sentences += [KEPT.format(name=thing, place=room), CODE.format(place=room, code=number)]
    planted = plant(text, list(zip(shares, sentences, strict=True)))
    asks = f"What is the code of the place in which the {things[0]} is kept?"
    return Draft("two_facts", planted.text, asks, numbers[:1], tuple(sorted(planted.spans[:2])))
