"""Which comparisons of task scores are primary: declared before measuring, so that Holm's correction covers few of them.

A release replaces what would be published otherwise. That is scaling only at the length the release is made for, and the base at its
own window. All other comparisons are secondary and have a family of their own.
"""

from __future__ import annotations

from collections.abc import Iterable

_PAIRS = (("fine_tuned", "scaling_only"), ("fine_tuned", "base"), ("scaling_only", "base"))


def compared_pairs(arms: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The pairs of arms whose scores are compared: those with the fine-tuned model, where there is one."""
    present = set(arms)
    wanted = _PAIRS[:2] if "fine_tuned" in present else _PAIRS[2:]
    return tuple(pair for pair in wanted if set(pair) <= present)


def primary_length(second: str, lengths: Iterable[int], base_window: int) -> int | None:
    """The length of a task's primary comparison against `second`; None where it was not measured."""
    measured = set(lengths)
    if second == "base":
        return base_window if base_window in measured else None
    return max(measured, default=None)
