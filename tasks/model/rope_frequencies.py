"""Rotary frequencies of each scaling method, in float64 and with numpy only.

A rotary embedding turns the pair of channels i of a head by the angle `position * inv_freq[i]`; attention scores of the
rotated queries and keys are multiplied by the square of the attention factor. d is the rotary dimension, s the factor,
L the original context length, b = rope_theta:

    default    1 / b^(2i/d)                                             Su et al. 2021, arXiv 2104.09864
    linear     default / s                                              Chen et al. 2023, arXiv 2306.15595
    dynamic    default with b (s n/L - (s - 1))^(d/(d-2)), n = max(sequence length, L)   dynamic NTK
    yarn       default / s where a pair turns less than beta_slow times in L, default where it turns more than
               beta_fast times, a linear ramp over i between           Peng et al. 2023, arXiv 2309.00071
    longrope   default / short_factor[i], or / long_factor[i] beyond L  Ding et al. 2024, arXiv 2402.13753
    llama3     default / s for wavelengths above L / low_freq_factor, default below L / high_freq_factor,
               and linear in the number of turns between               Llama 3.1

Static base change (`ntk`) is `default` with another theta, see `ntk_theta`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

BETA_FAST = 32.0
BETA_SLOW = 1.0


def default_frequencies(theta: float, rotary_dim: int) -> FloatArray:
    """Unscaled inverse frequencies, float64 [rotary_dim / 2], in radians a token."""
    return theta ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)


def ntk_theta(theta: float, factor: float, rotary_dim: int) -> float:
    """The base that divides the lowest frequency by exactly `factor` and leaves the highest as it is (rotary_dim > 2)."""
    return theta * factor ** (rotary_dim / (rotary_dim - 2))


def yarn_temperature(factor: float, mscale: float = 1.0) -> float:
    """YaRN's sqrt(1/t) = 0.1 mscale ln s + 1 (eq. 22), which multiplies both cosine and sine."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def longrope_attention_factor(factor: float, original_length: int) -> float:
    """LongRoPE's sqrt(1 + ln s / ln L)."""
    return math.sqrt(1 + math.log(factor) / math.log(original_length)) if factor > 1 else 1.0


def yarn_attention_factor(parameters: Mapping[str, Any]) -> float:
    """The attention factor a YaRN dict means: an explicit one, a ratio of mscales, or the paper's temperature."""
    explicit = parameters.get("attention_factor")
    if explicit is not None:
        return float(explicit)
    mscale, mscale_all_dim = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if mscale and mscale_all_dim:
        return yarn_temperature(parameters["factor"], mscale) / yarn_temperature(parameters["factor"], mscale_all_dim)
    return yarn_temperature(parameters["factor"])


def scaled_frequencies(
    parameters: Mapping[str, Any], rotary_dim: int, max_position_embeddings: int, seq_len: int
) -> tuple[FloatArray, float]:
    """Inverse frequencies float64 [rotary_dim / 2] and the attention factor for a sequence of `seq_len` tokens.

    `parameters` is a `rope_parameters` dict of transformers 5, `rope_theta` included; `max_position_embeddings` is the
    config's, which dynamic NTK counts from. ValueError for a rope type that is not in the table above.
    """
    theta = float(parameters["rope_theta"])
    inv_freq = default_frequencies(theta, rotary_dim)
    match parameters["rope_type"]:
        case "default":
            return inv_freq, 1.0
        case "linear":
            return inv_freq / parameters["factor"], 1.0
        case "dynamic":
            factor, length = parameters["factor"], max(seq_len, max_position_embeddings)
            stretch = factor * length / max_position_embeddings - (factor - 1)
            return default_frequencies(ntk_theta(theta, stretch, rotary_dim), rotary_dim), 1.0
        case "yarn":
            return _yarn(inv_freq, theta, rotary_dim, parameters), yarn_attention_factor(parameters)
        case "longrope":
            return _longrope(inv_freq, parameters, seq_len)
        case "llama3":
            return _llama3(inv_freq, parameters), 1.0
        case other:
            raise ValueError(f"no formula for rope type {other!r}")


def _yarn(inv_freq: FloatArray, theta: float, rotary_dim: int, parameters: Mapping[str, Any]) -> FloatArray:
    """The ramp of the authors' code: linear in the channel index, where the paper's eq. 13 is linear in the turns."""

    def index_turning(turns: float) -> float:
        # Channel pair i turns L b^(-2i/d) / (2 pi) times within the original length L; solved for i.
        return (
            rotary_dim
            * math.log(parameters["original_max_position_embeddings"] / (turns * 2 * math.pi))
            / (2 * math.log(theta))
        )

    low = index_turning(parameters.get("beta_fast") or BETA_FAST)
    high = index_turning(parameters.get("beta_slow") or BETA_SLOW)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    width = high - low or 0.001
    interpolated = np.clip((np.arange(rotary_dim // 2) - low) / width, 0, 1)
    return inv_freq * (interpolated / parameters["factor"] + (1 - interpolated))


def _longrope(inv_freq: FloatArray, parameters: Mapping[str, Any], seq_len: int) -> tuple[FloatArray, float]:
    original = parameters["original_max_position_embeddings"]
    factors = parameters["long_factor" if seq_len > original else "short_factor"]
    explicit = parameters.get("attention_factor")
    attention = longrope_attention_factor(parameters["factor"], original) if explicit is None else float(explicit)
    return inv_freq / np.asarray(factors, dtype=np.float64), attention


def _llama3(inv_freq: FloatArray, parameters: Mapping[str, Any]) -> FloatArray:
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] * inv_freq / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return inv_freq * ((1 - kept) / parameters["factor"] + kept)
