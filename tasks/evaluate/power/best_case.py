"""What a comparison shows at best, by the number of samples alone."""

from __future__ import annotations

import math
from itertools import count

from tasks.evaluate.statistics.estimates import normal_quantile
from tasks.evaluate.statistics.hypothesis_tests import smallest_sign_flip_p
from tasks.evaluate.statistics.non_inferiority import lower_bound_of_equal


def smallest_p(num_samples: int, family_size: int, *, is_mcnemar: bool = False) -> float:
    """The smallest p-value after Holm's correction: every sample of every test in the family favours the same model.

    `is_mcnemar`: each sample is one prompt that is answered right or wrong.
    """
    return min(1.0, family_size * smallest_sign_flip_p(num_samples, is_mcnemar=is_mcnemar))


def fewest_for_a_test(family_size: int, alpha: float, *, is_mcnemar: bool = False) -> int | None:
    """From this many samples on some outcome of a test is below `alpha`; None where the family is too large for any number."""
    if smallest_p(1_000, family_size, is_mcnemar=is_mcnemar) >= alpha:
        return None
    return next(n for n in count(1) if smallest_p(n, family_size, is_mcnemar=is_mcnemar) < alpha)


def fewest_for_the_margin(margin: float, confidence: float) -> int:
    """From this many samples on equal scores rule out a loss of `margin`, a share above 0."""
    squared = normal_quantile(confidence) ** 2
    near = max(1, math.floor(squared / margin - squared))  # Tango's bound of equal scores is -squared / (n + squared)
    return next(n for n in count(max(1, near - 2)) if lower_bound_of_equal(n, confidence) > -margin)
