"""Whether what was found beats the closed forms, on needles and texts that the search never saw.

Found factors are compared with every closed form by the mean paired difference of the score, with Student's t interval over documents.
With n comparisons each interval is at level 1 - (1 - confidence) / n (Bonferroni). The found factors are used only if they beat each
rival, those closed forms that the plan can take: its interval lies below zero. Otherwise the best rival is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_schemas.rope_search import Form
from tasks.evaluate.statistics.estimates import Estimate, mean_with_t_interval
from tasks.rope_search.scores import Measured

FOUND: Form = "longrope"


@dataclass(frozen=True)
class Decision:
    """`differences`: found minus each closed form, nats; below zero the found factors are better. `unbeaten`: rivals not beaten."""

    chosen: Form
    differences: dict[str, Estimate]
    unbeaten: tuple[Form, ...]
    level: float

    def sentence(self) -> str:
        if not self.unbeaten:
            return "The factors found beat every closed form that the plan could take instead, beyond the interval."
        return (
            f"The factors found do not beat {', '.join(self.unbeaten)} beyond the interval, so the plan takes {self.chosen}, the best "
            "closed form."
        )


def mean_by_document(values: np.ndarray, doc_ids: Sequence[str]) -> np.ndarray:
    """The mean of the `values` [num_samples] of each document, float64 [num_documents]."""
    _, numbers = np.unique(np.asarray(doc_ids), return_inverse=True)
    means: np.ndarray = np.bincount(numbers, values) / np.bincount(numbers)
    return means


def decide(
    measured: Mapping[Form, Measured], rivals: Sequence[Form], text_weight: float, confidence: float, doc_ids: Sequence[str]
) -> Decision:
    """`measured`: by name, on the same samples of at least two documents, whose ids are `doc_ids`; holds FOUND and the `rivals`."""
    scores = {name: np.asarray(of_one.scores(text_weight)) for name, of_one in measured.items()}
    closed = [name for name in measured if name != FOUND]
    level = 1 - (1 - confidence) / len(closed)
    # Samples of one document are alike, so a document counts once.
    differences: dict[str, Estimate] = {
        name: mean_with_t_interval(mean_by_document(scores[FOUND] - scores[name], doc_ids), level) for name in closed
    }
    unbeaten = tuple(name for name in rivals if not _is_below_zero(differences[name]))
    best_rival = min(rivals, key=lambda name: (float(scores[name].mean()), name))
    return Decision(best_rival if unbeaten else FOUND, differences, unbeaten, level)


def _is_below_zero(difference: Estimate) -> bool:
    return difference.high is not None and difference.high < 0
