"""Loss weights by token, in files beside the token sequences: of retrieval documents and of conversations.

`train-00012.weights` holds the weights of all sequences of a part end to end as little-endian float32, in the order of
`train-00012.tokens`. Parts without such a file have weight 1 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_schemas.errors import UserError
from data_schemas.parts import Parts
from tasks.pack.sequences import Located


def weights_name(split: str, part: int) -> str:
    return f"{split}-{part:05d}.weights"


@dataclass(frozen=True)
class WeightReader:
    """Loss weights by sequence of one split.

    weighted  numbers of the parts that have weights
    in_full   numbers of the parts whose sequences attend in full
    """

    parts: Parts
    split: str
    weighted: tuple[int, ...]
    in_full: tuple[int, ...]

    def has_weights(self, located: Located) -> np.ndarray:
        """bool [num_sequences]: which sequences have weights of their own."""
        return np.isin(located.parts, self.weighted)

    def attends_in_full(self, located: Located) -> np.ndarray:
        """bool [num_sequences]."""
        return np.isin(located.parts, self.in_full)

    def read(self, located: Located) -> np.ndarray:
        """float32 [sum of lengths]: the weights, end to end; 1 for sequences without."""
        weights = np.ones(int(located.lengths.sum(dtype=np.int64)), np.float32)
        ends = np.cumsum(located.lengths, dtype=np.int64)
        for i in np.flatnonzero(self.has_weights(located)).tolist():
            path = self.parts.kept(weights_name(self.split, int(located.parts[i])))
            length = int(located.lengths[i])
            read = np.fromfile(path, "<f4", length, offset=4 * int(located.starts[i]))
            if len(read) != length:
                raise UserError(f"{path} was cut short: delete that file's folder and run again.")
            weights[ends[i] - length : ends[i]] = read
        return weights
