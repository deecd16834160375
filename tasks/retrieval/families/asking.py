"""In which order a document's questions are asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.retrieval.draft import Turn

_BACKWARDS = 0.5  # of the documents


def in_some_order(turns: Sequence[Turn], rng: np.random.Generator) -> tuple[Turn, ...]:
    """The turns in random order, or from the last evidence to the first.

    Backwards, all distances between evidence and answer are equally frequent. In random order few are nearly a whole document long.
    """
    shuffled = [turns[i] for i in rng.permutation(len(turns)).tolist()]
    if rng.random() < _BACKWARDS:
        return tuple(sorted(shuffled, key=lambda turn: turn.evidence, reverse=True))
    return tuple(shuffled)
