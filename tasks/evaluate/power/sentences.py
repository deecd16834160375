"""What the planned comparisons can show, in one sentence each."""

from __future__ import annotations

from data_schemas.report_verdicts import PlannedComparison, Power


def power_lines(power: Power) -> list[str]:
    """One line a comparison: what it finds, or that it can show nothing."""
    return [_line(planned, power.detectable_effect) for planned in power.comparisons]


def _line(planned: PlannedComparison, effect: float) -> str:
    if planned.smallest_p is None:
        return f"{planned.name}: {_margin(planned)}"
    if not planned.can_show:
        return f"{planned.name}: {_nothing(planned)}"
    needed = (
        "more samples than can be planned" if planned.samples_for_effect is None else f"{planned.samples_for_effect} samples"
    )
    found = "no difference" if planned.detectable is None else f"differences from {100 * planned.detectable:.0f} points"
    return (
        f"{planned.name}: {planned.num_samples} samples find {found} (80 % power); smallest p {planned.smallest_p:.2g} after Holm over "
        f"{planned.family_size} tests; {100 * effect:g} points need {needed}"
    )


def _nothing(planned: PlannedComparison) -> str:
    needed = f"at least {planned.fewest_samples} are needed" if planned.fewest_samples else "the family has too many tests"
    return (
        f"{_samples(planned)} can show no difference, whatever is measured: p is {planned.smallest_p:.2g} at best after "
        f"Holm over {planned.family_size} tests; {needed}"
    )


def _margin(planned: PlannedComparison) -> str:
    assert planned.best_low is not None
    bound = f"the lower bound of equal scores is {100 * planned.best_low:.0f} points"
    if planned.can_show:
        return f"{_samples(planned)} can show it; {bound}"
    return f"{_samples(planned)} cannot show it for equal scores: {bound}; at least {planned.fewest_samples} samples are needed"


def _samples(planned: PlannedComparison) -> str:
    return "1 sample" if planned.num_samples == 1 else f"{planned.num_samples} samples"
