"""How the report writes numbers: estimates with their intervals, and p values with what they are corrected for."""

from __future__ import annotations

from data_schemas.report_sections import Bound


def perplexity(value: float, low: Bound, high: Bound) -> str:
    """`9.20 [7.94, 10.66]`, `34.7 [29.6, 41.0]`, `106 [91, 121]`: about three digits, by the size of the estimate."""
    return with_interval(value, low, high, 2 if value < 9.995 else 1 if value < 99.95 else 0)


def ratio(value: float, low: Bound, high: Bound) -> str:
    """`0.962 [0.950, 0.975]`; from 10 on with one decimal."""
    return with_interval(value, low, high, 3 if value < 9.9995 else 1)


def share(value: float, low: Bound, high: Bound) -> str:
    """`18% [4%, 52%]`, of a score from 0 to 1."""
    return f"{value:.0%}" if low is None or high is None else f"{value:.0%} [{low:.0%}, {high:.0%}]"


def points(value: float, low: Bound, high: Bound) -> str:
    """A difference of shares in percentage points."""
    return with_interval(100 * value, None if low is None else 100 * low, None if high is None else 100 * high, 0)


def gain(value: float | None, low: Bound, high: Bound) -> str:
    """`+15.1 [+14.2, +16.0] nats`; empty where it was not measured."""
    return "" if value is None else f"{with_interval(value, low, high, 1, sign='+')} nats"


def with_interval(value: float, low: Bound, high: Bound, digits: int, sign: str = "") -> str:
    """The estimate alone where there is no interval. A zero is never written -0."""
    form = f"{sign}.{digits}f"

    def text(number: float) -> str:
        return format(round(number, digits) + 0.0, form)

    return text(value) if low is None or high is None else f"{text(value)} [{text(low)}, {text(high)}]"


def p_value(value: float) -> str:
    """Two digits; `<0.0001` below that."""
    return "<0.0001" if value < 0.0001 else f"{value:.2g}"


def p_holm(value: float, num_tests: int) -> str:
    """A p value after Holm's correction, with the number of tests that were corrected together."""
    return f"{p_value(value)} (Holm over {num_tests})"
