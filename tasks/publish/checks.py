"""One thing that was verified, and a way to do it that never crashes on a strange folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """`detail` says what was seen; "absent: …" where there was nothing to check."""

    name: str
    ok: bool
    detail: str


class ProblemFound(Exception):
    """The checked thing is not as it must be; the message says how."""


def run_check(name: str, look: Callable[[], str]) -> Check:
    """The outcome of `look`, which returns what it saw, or raises ProblemFound.

    A missing file is "absent"; any other exception is a failed check that names it, because what lies in a release may
    have been altered in every possible way.
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
    """`fine` if there is no problem, else ProblemFound with all of them."""
    if problems:
        raise ProblemFound("; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else ""))
    return fine


def failures(checks: list[Check]) -> list[str]:
    """One phrase for each check that is not ok."""
    return [f"{check.name}: {check.detail}" for check in checks if not check.ok]
