"""Comparing what a stage made with what is recorded: exactly, or up to the noise of floating point."""

import math
import re
from typing import Any

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def differences(recorded: Any, found: Any, tolerance: float | None, at: str = "") -> list[str]:
    """Where JSON values differ, as sentences. With a tolerance, floats may differ by it, relatively (and absolutely below 1).

    Numbers within a text then may differ by one in the last printed digit; integers, other text and structure are always exact.
    """
    if isinstance(recorded, dict) and isinstance(found, dict):
        gone, new = sorted(recorded.keys() - found.keys()), sorted(found.keys() - recorded.keys())
        told = [f"{at}/{name} is gone" for name in gone] + [f"{at}/{name} is new" for name in new]
        shared = [name for name in recorded if name in found]
        return told + [line for name in shared for line in differences(recorded[name], found[name], tolerance, f"{at}/{name}")]
    if isinstance(recorded, list) and isinstance(found, list):
        told = [f"{at} has {len(found)} items, {len(recorded)} are recorded"] if len(recorded) != len(found) else []
        pairs = enumerate(zip(recorded, found, strict=False))
        return told + [line for i, (old, new) in pairs for line in differences(old, new, tolerance, f"{at}[{i}]")]
    return [] if _equal(recorded, found, tolerance) else [f"{at} is {found!r}, recorded is {recorded!r}"]


def _equal(recorded: Any, found: Any, tolerance: float | None) -> bool:
    if tolerance is None or type(recorded) is not type(found):
        return bool(recorded == found and isinstance(recorded, bool) == isinstance(found, bool))
    if isinstance(recorded, float):
        return math.isclose(recorded, found, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(recorded, str) and recorded != found:
        numbers = list(zip(_NUMBER.findall(recorded), _NUMBER.findall(found), strict=False))
        return _NUMBER.sub("0", recorded) == _NUMBER.sub("0", found) and all(_printed_alike(*pair) for pair in numbers)
    return bool(recorded == found)


def _printed_alike(recorded: str, found: str) -> bool:
    decimals = len(recorded.partition(".")[2])
    if not decimals:
        return recorded == found
    return abs(float(recorded) - float(found)) < 1.01 * 10**-decimals
