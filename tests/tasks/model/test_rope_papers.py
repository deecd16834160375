"""Frequencies of every plan against the papers' formulas, written here pair by pair in plain Python; no transformers in them.

PI: Chen et al. 2023, arXiv 2306.15595, eq. 4. NTK-aware: bloc97 2023, as YaRN's eq. 9-11. YaRN: Peng et al. 2023, arXiv 2309.00071,
sections 3.2-3.4. LongRoPE: Ding et al. 2024, arXiv 2402.13753, eq. 3, with Phi-3's attention factor. Llama 3: Meta's
`apply_scaling`, by wavelengths.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from data_schemas.errors import UserError
from data_schemas.params import ModelParams
from tasks.model.extended import rope_plan_for
from tasks.model.rope_plan import RopePlan, plan_rope

HEAD = 32


def unscaled(theta: float, dim: int = HEAD) -> list[float]:
    return [1 / theta ** (2 * i / dim) for i in range(dim // 2)]


def position_interpolation(theta: float, window: float, target: float) -> list[float]:
    """f'(x, m) = f(x, m L / L'): a position m turns as m L / L' did."""
    return [w * window / target for w in unscaled(theta)]


def ntk_aware(theta: float, stretch: float) -> list[float]:
    """b' = b s^(d / (d - 2)); so the pair i is divided by s^(2i / (d - 2)), from 1 for the first to s for the last."""
    return [w / stretch ** (2 * i / (HEAD - 2)) for i, w in enumerate(unscaled(theta))]


def yarn(theta: float, original: float, scale: float, fast: float = 32, slow: float = 1) -> tuple[list[float], float]:
    """Interpolated below the pair that turns `slow` times in the original window, kept above `fast`; temperature eq. 22."""
    low = max(math.floor(HEAD * math.log(original / (fast * 2 * math.pi)) / (2 * math.log(theta))), 0)
    high = min(math.ceil(HEAD * math.log(original / (slow * 2 * math.pi)) / (2 * math.log(theta))), HEAD - 1)
    found = []
    for i, w in enumerate(unscaled(theta)):
        gamma = 1.0 if i <= low else 0.0 if i >= high else 1 - (i - low) / (high - low)
        found.append((1 - gamma) * w / scale + gamma * w)
    return found, 0.1 * math.log(scale) + 1


def llama3(theta: float, original: float, scale: float, low: float = 1, high: float = 4) -> list[float]:
    found = []
    for w in unscaled(theta):
        wavelength = 2 * math.pi / w
        if wavelength < original / high:
            found.append(w)
        elif wavelength > original / low:
            found.append(w / scale)
        else:
            smooth = (original / wavelength - low) / (high - low)
            found.append((1 - smooth) * w / scale + smooth * w)
    return found


def longrope(theta: float, factors: list[float], original: float, target: float) -> tuple[list[float], float]:
    scaled = [w / lam for w, lam in zip(unscaled(theta), factors, strict=True)]
    return scaled, math.sqrt(1 + math.log(target / original) / math.log(original))


def llama(window: int, theta: float, **rope: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32, hidden_size=2 * HEAD, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": theta} | rope,
    )  # fmt: skip


def agree(plan: RopePlan, frequencies: list[float], attention: float = 1.0, seq_len: int | None = None) -> None:
    ours, factor = plan.frequencies(seq_len or plan.target_length)
    np.testing.assert_allclose(ours, frequencies, rtol=1e-9)
    assert factor == pytest.approx(attention, rel=1e-9)


thetas, windows, stretches = st.floats(1e3, 1e7), st.integers(256, 1 << 16), st.floats(1.1, 32)


@settings(max_examples=80)
@given(thetas, windows, stretches)
def test_on_an_unscaled_base(theta: float, window: int, stretch: float) -> None:
    target = int(window * stretch)
    scale, config = target / window, llama(window, theta)
    agree(plan_rope(config, target, "linear"), position_interpolation(theta, window, target))
    agree(plan_rope(config, target, "ntk"), ntk_aware(theta, scale))
    agree(plan_rope(config, target, "yarn"), *yarn(theta, window, scale))
    agree(plan_rope(config, target, "llama3"), llama3(theta, window, scale))
    dynamic = plan_rope(config, target, "dynamic")
    agree(dynamic, unscaled(theta), seq_len=window)
    # YaRN's eq. for dynamic scaling with the factor s: at l tokens the stretch is s l / L - (s - 1).
    agree(dynamic, ntk_aware(theta, scale * target / window - (scale - 1)), seq_len=target)


@settings(max_examples=40)
@given(thetas, windows, st.integers(2, 8), st.integers(2, 4))
def test_on_scaled_bases_from_the_window_they_were_first_trained_on(theta: float, window: int, first: int, more: int) -> None:
    extended, target = window * first, window * first * more
    linear = llama(window, theta, rope_type="linear", factor=float(first))
    agree(plan_rope(linear, target), position_interpolation(theta, window, target))
    inside = {"factor": float(first), "original_max_position_embeddings": window}
    agree(plan_rope(llama(extended, theta, rope_type="yarn", **inside), target), *yarn(theta, window, first * more))
    tuned = llama(extended, theta, rope_type="yarn", beta_fast=16.0, beta_slow=2.0, **inside)
    agree(plan_rope(tuned, target), *yarn(theta, window, first * more, 16, 2))
    bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    banded = llama(extended, theta, rope_type="llama3", **inside, **bands)
    agree(plan_rope(banded, target), llama3(theta, window, first * more))
    # Theta raised below the bands: the base's own formula over other unscaled frequencies.
    agree(plan_rope(banded, target, "ntk"), llama3(theta * more ** (HEAD / (HEAD - 2)), window, first))


@settings(max_examples=40)
@given(thetas, windows, st.integers(2, 16), st.lists(st.floats(1, 64), min_size=HEAD // 2, max_size=HEAD // 2))
def test_longrope_with_its_attention_factor(theta: float, window: int, scale: int, factors: list[float]) -> None:
    both = {"short_factor": factors, "long_factor": factors}
    agree(
        plan_rope(llama(window, theta), window * scale, "longrope", factors=both),
        *longrope(theta, factors, window, window * scale),
    )
    base = llama(
        2 * window, theta, rope_type="longrope", factor=2.0, original_max_position_embeddings=window,
        short_factor=[1.0] * (HEAD // 2), long_factor=[2.0] * (HEAD // 2),
    )  # fmt: skip
    target = 2 * window * scale
    agree(plan_rope(base, target, factors=both), *longrope(theta, factors, window, target))
    one = {"short_factor": [1.0] * (HEAD // 2), "long_factor": factors}
    switching = plan_rope(base, target, factors=one, packed_rows=False)
    agree(switching, *longrope(theta, [1.0] * (HEAD // 2), window, target), seq_len=window)
    agree(switching, *longrope(theta, factors, window, target), seq_len=window + 1)


BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = {
    "linear": (64, {"factor": 2.0}),
    "yarn": (128, {"factor": 2.0, "original_max_position_embeddings": 64}),
    "llama3": (128, {"factor": 2.0, "original_max_position_embeddings": 64, **BANDS}),
    "dynamic": (128, {"factor": 2.0}),
}


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("method", ["auto", "ntk"])
def test_transformers_computes_it_on_scaled_bases_after_save_and_reload(kind: str, method: Any, tmp_path: Path) -> None:
    window, extra = SCALED[kind]
    config = llama(window, 50_000.0, rope_type=kind, **extra)
    if method == "ntk" and kind in ("linear", "yarn"):
        with pytest.raises(UserError, match=f"choose {kind}"):
            plan_rope(config, 512, method)
        return
    plan = plan_rope(config, 512, method)
    plan.apply(config)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    plan.write_config(tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    rotary = reloaded.model.rotary_emb
    rotary(torch.zeros(1), torch.arange(512)[None])
    ours, attention = plan.frequencies(512)
    np.testing.assert_allclose(rotary.inv_freq.double().numpy(), ours, rtol=1e-5)
    assert rotary.attention_scaling == pytest.approx(attention, rel=1e-6)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["max_position_embeddings"] == (64 if kind == "linear" else 512)
    assert plan.servable_by()["vllm"] == ""


def test_a_base_published_by_ropeway_with_longrope_loads_with_new_factors(tmp_path: Path) -> None:
    base = llama(64, 50_000.0)
    first = plan_rope(base, 128, factors={"short_factor": [2.0] * 16, "long_factor": [2.0] * 16})
    first.apply(base)
    factors = [1.0 + i / 2 for i in range(16)]
    plan = plan_rope(base, 512, factors={"short_factor": factors, "long_factor": factors})
    plan.apply(base)
    LlamaForCausalLM(base).save_pretrained(tmp_path)
    plan.write_config(tmp_path)
    rotary = AutoModelForCausalLM.from_pretrained(tmp_path).model.rotary_emb
    expected, attention = longrope(50_000.0, factors, 64, 512)
    for seq_len in (64, 65, 512):
        rotary(torch.zeros(1), torch.arange(seq_len)[None])
        np.testing.assert_allclose(rotary.inv_freq.double().numpy(), expected, rtol=1e-5)
        assert rotary.attention_scaling == pytest.approx(attention, rel=1e-6)


def test_what_must_serve_the_model_is_asked_before_anything_is_trained(tmp_path: Path) -> None:
    llama(64, 50_000.0).save_pretrained(tmp_path)
    model = ModelParams(base=str(tmp_path), target_length=256, rope_method="dynamic")
    assert rope_plan_for(model).method == "dynamic"
    with pytest.raises(UserError, match=r"vllm.*choose yarn or ntk"):
        rope_plan_for(model.model_copy(update={"serve_with": ("vllm",)}))
