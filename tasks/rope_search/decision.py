"""Whether what was found beats the closed forms, on needles and texts that the search never saw.

Found factors are compared with every closed form by the mean paired difference of the score, with Student's t interval over works.
They are used only if they beat each rival, those closed forms that the plan can take: every interval lies below zero. Because all must
be beaten, each comparison may be made at the stated confidence: the chance of wrongly preferring the found factors to the best rival is
that of a single test (intersection-union test, Berger 1982, Technometrics 24). Otherwise the rival with the best score is used, of those
that were measured on all samples. The found factors may beat it: a worse rival with a wider interval is no reason to take that one.

There are two looks. A form that is far behind on the first quarter of the samples is measured no further. A tenth of the error goes to
the first look and the rest to the last, so that both together keep the confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_schemas.rope_search import Form
from tasks.evaluate.statistics.estimates import Estimate, mean_with_t_interval
from tasks.rope_search.scores import Measured
from tasks.rope_search.table import NAMES

FOUND: Form = "longrope"
_FIRST_SHARE = 4  # one sample in so many is in the first look
_FEWEST_FIRST = 4
_ERROR_OF_FIRST_LOOK = 0.1


@dataclass(frozen=True)
class Decision:
    """`differences`: found minus each closed form, nats; below zero the found factors are better. `unbeaten`: rivals not beaten."""

    chosen: Form
    differences: dict[Form, Estimate]
    unbeaten: tuple[Form, ...]
    level: float

    def sentence(self) -> str:
        if not self.unbeaten:
            return "The factors found beat every closed form that the plan could take instead, beyond the interval."
        return (
            f"The factors found do not beat {', '.join(NAMES[form] for form in self.unbeaten)} beyond the interval, so the plan takes "
            f"{NAMES[self.chosen]}, the best of the closed forms that it can take."
        )


def mean_by_cluster(values: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """The mean of the `values` [num_samples] of each cluster, float64 [num_clusters]."""
    _, numbers = np.unique(np.asarray(clusters), return_inverse=True)
    means: np.ndarray = np.bincount(numbers, values) / np.bincount(numbers)
    return means


def first_look(num_samples: int) -> int:
    """How many of the deciding samples every form is measured on."""
    return min(num_samples, max(_FEWEST_FIRST, num_samples // _FIRST_SHARE))


def far_behind(
    measured: Mapping[Form, Measured], text_weight: float, confidence: float, clusters: Sequence[str]
) -> tuple[Form, ...]:
    """The closed forms that the first look shows to be worse than the found factors; see `decide` for the arguments."""
    level = 1 - _ERROR_OF_FIRST_LOOK * (1 - confidence)
    return tuple(name for name, one in _differences(measured, text_weight, level, clusters).items() if _is_below_zero(one))


def decide(
    measured: Mapping[Form, Measured], rivals: Sequence[Form], text_weight: float, confidence: float, clusters: Sequence[str]
) -> Decision:
    """`measured`: by name, on the same samples, those far behind on the first ones only; holds FOUND and the `rivals`.

    `clusters`: the work of each sample; of at least two works.
    """
    level = 1 - (1 - _ERROR_OF_FIRST_LOOK) * (1 - confidence)
    differences = _differences(measured, text_weight, level, clusters)
    unbeaten = tuple(name for name in rivals if not _is_below_zero(differences[name]))
    # Rivals that were dropped at the first look were measured on fewer samples, and are beaten.
    whole = [name for name in rivals if len(measured[name].answers) == len(clusters)]
    best = max(whole, key=lambda name: (differences[name].value, name)) if unbeaten else FOUND
    return Decision(best, differences, unbeaten, level)


def _differences(
    measured: Mapping[Form, Measured], text_weight: float, level: float, clusters: Sequence[str]
) -> dict[Form, Estimate]:
    """Found minus each closed form, over the samples that the form was measured on."""
    scores = {name: np.asarray(of_one.scores(text_weight)) for name, of_one in measured.items()}
    found: dict[Form, Estimate] = {}
    for name, of_form in scores.items():
        if name != FOUND:
            count = len(of_form)
            # Samples of one work are alike, so a work counts once.
            found[name] = mean_with_t_interval(mean_by_cluster(scores[FOUND][:count] - of_form, clusters[:count]), level)
    return found


def _is_below_zero(difference: Estimate) -> bool:
    return difference.high is not None and difference.high < 0
