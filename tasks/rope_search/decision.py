"""Whether what was found beats the closed forms, on needles and texts that the search never saw.

Found factors are compared with YaRN, NTK and NTK at the measured critical pair by the mean paired difference of the score, with
Student's t interval over samples. There are three comparisons, so each interval is at level 1 - (1 - confidence) / 3 (Bonferroni). The
found factors are used only if every interval lies below zero; otherwise the best closed form is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tasks.evaluate.statistics.estimates import Estimate, mean_with_t_interval
from tasks.rope_search.scores import Measured

FOUND = "longrope"


@dataclass(frozen=True)
class Decision:
    """`differences`: found minus each other form, nats; below zero the found factors are better."""

    chosen: str
    differences: dict[str, Estimate]
    level: float

    @property
    def is_better(self) -> bool:
        return self.chosen == FOUND

    def sentence(self) -> str:
        if self.is_better:
            return "The factors found beat every closed form they were compared with, beyond the interval."
        doubtful = [name for name, d in self.differences.items() if d.high is None or d.high >= 0]
        return (
            f"The factors found do not beat {', '.join(doubtful)} beyond the interval, so the plan takes {self.chosen}, the best closed form."
        )


def decide(measured: Mapping[str, Measured], rivals: tuple[str, ...], text_weight: float, confidence: float) -> Decision:
    """`measured`: by name, on the same samples; holds FOUND and the `rivals`."""
    scores = {name: np.asarray(of_one.scores(text_weight)) for name, of_one in measured.items()}
    level = 1 - (1 - confidence) / len(rivals)
    differences = {name: mean_with_t_interval(scores[FOUND] - scores[name], level) for name in rivals}
    beats_all = all(d.high is not None and d.high < 0 for d in differences.values())
    best_form = min(rivals, key=lambda name: (float(scores[name].mean()), name))
    return Decision(FOUND if beats_all else best_form, differences, level)
