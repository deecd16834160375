"""What other programs understand from a published config.json, by the rules in their sources.

Each reading is the rotary embedding as `rope_parameters` of transformers 5 would state it, plus the length served.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_DEFAULT_THETA = 10_000.0
# Types whose max_position_embeddings vLLM takes as it is; it multiplies the others' by the factor.
_EXTENDED_IN_VLLM = {"su", "longrope", "llama3", "default"}


def read_as_transformers4(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 4.46 to 4.57: `rope_scaling` and top-level `rope_theta`; `rope_parameters` is unknown to them."""
    reading = _legacy(config)
    original = reading.get("original_max_position_embeddings")
    if reading["rope_type"] == "yarn" and original:
        # modeling_rope_utils._compute_yarn_parameters of 4.57 takes the ratio of the lengths as the factor.
        reading["factor"] = config["max_position_embeddings"] / original
    return reading


def read_as_vllm(config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """vLLM: `rope_parameters`, else the legacy keys; and the longest prompt it derives, in tokens."""
    reading = dict(config["rope_parameters"]) if config.get("rope_parameters") else _legacy(config)
    served = config["max_position_embeddings"]
    if reading["rope_type"] not in _EXTENDED_IN_VLLM:
        if reading["rope_type"] == "yarn":
            served = reading["original_max_position_embeddings"]
        served = int(served * reading.get("factor", 1.0))
    return reading, int(config.get("original_max_position_embeddings") or served)


def differences(reading: Mapping[str, Any], planned: Mapping[str, Any]) -> list[str]:
    """One phrase for each key that is read otherwise than planned; numbers agree to six digits."""
    keys = sorted((set(reading) | set(planned)) - {"type"})
    wrong = [key for key in keys if not _equal(reading.get(key), planned.get(key))]
    return [f"{key} is {reading.get(key)!r} instead of {planned.get(key)!r}" for key in wrong]


def _legacy(config: Mapping[str, Any]) -> dict[str, Any]:
    scaling = dict(config.get("rope_scaling") or {})
    kind = scaling.get("rope_type") or scaling.pop("type", None) or "default"
    reading = {"rope_theta": config.get("rope_theta", _DEFAULT_THETA), **scaling, "rope_type": kind}
    if config.get("partial_rotary_factor") is not None:
        reading["partial_rotary_factor"] = config["partial_rotary_factor"]
    return reading


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, int | float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=1e-6)
    return bool(left == right)
