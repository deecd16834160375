"""Rotary frequencies as consumers compute them, in float64: written from their sources, independent of the planner's formulas.

Each takes the unscaled inverse frequencies, [rotary_dim / 2] in radians a token, or their parameters.

    transformers 4.57.6 and 5.23   modeling_rope_utils.py, `_compute_*_parameters`
    vLLM 0.32                      model_executor/layers/rotary_embedding/*.py, `_compute_inv_freq`, `_compute_cos_sin_cache`

The formulas of linear, yarn and llama3 are the same in both; `rules` has the differences in the values they read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float64]


def unscaled(theta: float, rotary_dim: int) -> Frequencies:
    return 1.0 / theta ** (np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)


def dynamic(theta: float, rotary_dim: int, factor: float, window: int, length: int) -> Frequencies:
    """transformers: the base grows with the longest position seen beyond `window` tokens."""
    grown = factor * max(length, window) / window - (factor - 1)
    return unscaled(theta * grown ** (rotary_dim / (rotary_dim - 2)), rotary_dim)


def yarn(theta: float, rotary_dim: int, parameters: Mapping[str, Any], original: int) -> Frequencies:
    """`find_correction_range` and the linear ramp between interpolated and kept frequencies."""

    def dimension(turns: float) -> float:
        return rotary_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(parameters.get("beta_fast") or 32), dimension(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    if low == high:
        high += 0.001
    kept = 1 - np.clip((np.arange(rotary_dim // 2) - low) / (high - low), 0, 1)
    inv_freq = unscaled(theta, rotary_dim)
    return inv_freq / parameters["factor"] * (1 - kept) + inv_freq * kept


def yarn_factor(parameters: Mapping[str, Any]) -> float:
    """The factor on cosine and sine: `get_mscale` of transformers, `yarn_get_mscale` of vLLM."""

    def mscale(weight: float = 1.0) -> float:
        return 0.1 * weight * math.log(parameters["factor"]) + 1 if parameters["factor"] > 1 else 1.0

    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return mscale(parameters["mscale"]) / mscale(parameters["mscale_all_dim"])
    return mscale()


def llama3(inv_freq: Frequencies, parameters: Mapping[str, Any]) -> Frequencies:
    """By wavelength against the original window, with a smooth ramp between the two bounds."""
    factor, original = parameters["factor"], parameters["original_max_position_embeddings"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    wavelength = 2 * math.pi / inv_freq
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * inv_freq / factor + smooth * inv_freq
    return np.where(wavelength < original / high, inv_freq, np.where(wavelength > original / low, inv_freq / factor, between))


def longrope(inv_freq: Frequencies, factors: Sequence[float]) -> Frequencies:
    return inv_freq / np.asarray(factors, dtype=np.float64)


def longrope_factor(extension: float, original: int) -> float:
    return math.sqrt(1 + math.log(extension) / math.log(original)) if extension > 1 else 1.0
