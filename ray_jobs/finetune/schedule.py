"""Learning rate over the run: a pure function of the step, so that resuming needs no scheduler state."""

import math
from typing import Literal


def learning_rate_scale(step: int, steps: int, warmup_steps: int, shape: Literal["cosine", "linear", "constant"]) -> float:
    """Factor on the peak learning rate at `step` (0-based): linear warm-up, then the shape down to 0 after `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if shape == "constant":
        return 1.0
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done)) if shape == "cosine" else 1.0 - done
