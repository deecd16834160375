"""A verified property of a release, and a way to check it that never crashes on an unexpected folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """`detail` says what was found; it starts with "absent:" if there was nothing to check."""

    name: str
    ok: bool
    detail: str


class ProblemFound(Exception):
    """The checked property does not hold; the message says why."""


def run_check(name: str, look: Callable[[], str]) -> Check:
    """The result of `look`, which returns what it found, or raises ProblemFound.

    A missing file is "absent". Any other exception is a failed check that names it, because the files of a release may have been
    altered in any way.
    """
    try:
        return Check(name, True, look())
    except ProblemFound as problem:
        return Check(name, False, str(problem))
    except FileNotFoundError as error:
        return Check(name, False, f"absent: {error.filename or error}")
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        return Check(name, False, f"{type(error).__name__}: {reason}")


def require(problems: list[str], fine: str) -> str:
    """`fine` if there are no problems, else ProblemFound with up to ten of them."""
    if problems:
        raise ProblemFound("; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else ""))
    return fine


def failures(checks: list[Check]) -> list[str]:
    """One phrase for each failed check."""
    return [f"{check.name}: {check.detail}" for check in checks if not check.ok]
