"""Positions with gaps, so that short rows train the positions of a long window (PoSE, arXiv 2309.10400).

    document of 8 tokens, 2 parts, window of 32      0 1 2 | 17 18 19 20 21

The first part starts at 0. Before each further part a random number of positions is skipped, so that all of them stay below the
window. Attention is still within the document: its tokens see the same tokens as without gaps, only at other distances.
"""

from __future__ import annotations

import numpy as np

_STREAM = 2**31 + 16


def skipped_positions(lengths: np.ndarray, num_parts: int, window: int, seed: int, step: int, row: int) -> np.ndarray:
    """int64 [T]: the positions of a row with documents of `lengths` int [num_documents], each below `window`.

    A pure function of its arguments. Skips are drawn as in the paper's section 3.2: the offset of a part is uniform between that
    of the part before and the most that fits.
    """
    draws = iter(np.random.PCG64(np.random.SeedSequence((seed, step, row, _STREAM))).random_raw(2 * num_parts * len(lengths)))
    found = []
    for length in np.asarray(lengths, np.int64).tolist():
        positions = np.arange(length)
        cuts = sorted(1 + int(next(draws)) % (length - 1) for _ in range(num_parts - 1)) if length > 1 else []
        offset, room = 0, max(0, window - length)
        for cut in cuts:
            further = int(next(draws)) % (room - offset + 1)
            positions[cut:] += further
            offset += further
        found.append(positions)
    return np.concatenate(found)
