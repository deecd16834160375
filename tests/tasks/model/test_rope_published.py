"""Real models: what transformers computes after apply, and after save, write_config and reload; and what others read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, LlamaForCausalLM, Phi3Config

from data_schemas.errors import UserError
from tasks.model.rope_plan import RopePlan, plan_rope

WINDOW, TARGET, HEAD_DIM = 64, 256, 16
METHODS = ["linear", "dynamic", "ntk", "yarn", "llama3", "longrope", "theta"]


def base(**extra: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        **extra,
    )


def planned(config: LlamaConfig, method: str) -> RopePlan:
    half = HEAD_DIM // 2
    factors = {"short_factor": [1.0] * half, "long_factor": [1.0 + i for i in range(half)]} if method == "longrope" else None
    theta = 2e6 if method == "theta" else None
    return plan_rope(config, TARGET, method, factors=factors, theta=theta, packed_rows=False)  # type: ignore[arg-type]


def published(method: str, directory: Path) -> tuple[LlamaForCausalLM, RopePlan]:
    config = base()
    plan = planned(config, method)
    plan.apply(config)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(directory)
    plan.write_config(directory)
    return model, plan


def computed(model: Any, seq_len: int) -> tuple[np.ndarray, float]:
    """Frequencies and attention factor that the model's rotary embedding uses for a sequence, by running it."""
    rotary = model.model.rotary_emb
    rotary(torch.zeros(1), torch.arange(seq_len)[None])
    return rotary.inv_freq.double().numpy(), rotary.attention_scaling


@pytest.mark.parametrize("method", METHODS)
def test_transformers_computes_the_plan_before_and_after_publishing(method: str, tmp_path: Path) -> None:
    model, plan = published(method, tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(reloaded.config.max_position_embeddings) is int
    for seq_len in (WINDOW // 2, WINDOW, WINDOW + 1, TARGET):
        ours, attention = plan.frequencies(seq_len)
        for candidate in (model, reloaded):
            theirs, their_attention = computed(candidate, seq_len)
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
            assert attention == pytest.approx(their_attention, rel=1e-6)
    tokens = torch.randint(0, 32, (1, TARGET), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, reloaded(tokens).logits, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_both_spellings_hold_equal_values(method: str, tmp_path: Path) -> None:
    _, plan = published(method, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["rope_parameters"] == plan.rope_parameters
    assert written["rope_theta"] == plan.rope_theta
    without_theta = {key: value for key, value in plan.rope_parameters.items() if key != "rope_theta"}
    assert written["rope_scaling"] == (None if method in ("ntk", "theta") else without_theta)
    assert written["max_position_embeddings"] == plan.max_position_embeddings
    assert "original_max_position_embeddings" not in written
    assert (written["vocab_size"], written["architectures"]) == (32, ["LlamaForCausalLM"])


def read_as_transformers_4(directory: Path, seq_len: int) -> tuple[np.ndarray, float]:
    """Frequencies as transformers 4.57 takes them from a config.json: `rope_scaling`, top-level `rope_theta`, the maximum."""
    config = json.loads((directory / "config.json").read_text())
    theta, maximum, scaling = config.get("rope_theta", 10_000.0), config["max_position_embeddings"], config.get("rope_scaling")
    dim = int(config["head_dim"] * config.get("partial_rotary_factor", 1.0))
    exponents = np.arange(0, dim, 2) / dim
    inv_freq = theta**-exponents
    kind = scaling["rope_type"] if scaling else "default"
    if kind == "linear":
        return inv_freq / scaling["factor"], 1.0
    if kind == "dynamic":
        factor, length = scaling["factor"], max(seq_len, maximum)
        return (theta * (factor * length / maximum - factor + 1) ** (dim / (dim - 2))) ** -exponents, 1.0
    if kind == "yarn":
        original = scaling.get("original_max_position_embeddings") or maximum
        low, high = (dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (32, 1))
        low, high = max(math.floor(low), 0), min(math.ceil(high), dim - 1)
        ramp = np.clip((np.arange(dim // 2) - low) / (high - low or 0.001), 0, 1)
        return inv_freq / scaling["factor"] * ramp + inv_freq * (1 - ramp), 0.1 * math.log(scaling["factor"]) + 1
    if kind == "llama3":
        wavelengths = 2 * math.pi / inv_freq
        original, low, high = (
            scaling["original_max_position_embeddings"],
            scaling["low_freq_factor"],
            scaling["high_freq_factor"],
        )
        smooth = (original / wavelengths - low) / (high - low)
        between = (1 - smooth) * inv_freq / scaling["factor"] + smooth * inv_freq
        scaled = np.where(wavelengths > original / low, inv_freq / scaling["factor"], between)
        return np.where(wavelengths < original / high, inv_freq, scaled), 1.0
    if kind == "longrope":
        original = config.get("original_max_position_embeddings") or maximum
        return inv_freq / np.array(scaling["long_factor" if seq_len > original else "short_factor"]), scaling[
            "attention_factor"
        ]
    return inv_freq, 1.0


@pytest.mark.parametrize("method", METHODS)
def test_a_reader_of_the_old_spelling_gets_the_same_or_is_named(method: str, tmp_path: Path) -> None:
    _, plan = published(method, tmp_path)
    same = True
    for seq_len in (WINDOW, WINDOW + 1, TARGET):
        ours, attention = plan.frequencies(seq_len)
        theirs, their_attention = read_as_transformers_4(tmp_path, seq_len)
        same = same and np.allclose(ours, theirs, rtol=1e-9) and math.isclose(attention, their_attention)
    assert same is (plan.servable_by()["transformers-4.57"] == "")


def test_save_pretrained_alone_hides_the_scaling_from_older_readers(tmp_path: Path) -> None:
    model, plan = published("yarn", tmp_path)
    model.save_pretrained(tmp_path)
    assert not np.allclose(read_as_transformers_4(tmp_path, TARGET)[0], plan.frequencies(TARGET)[0])
    plan.write_config(tmp_path)
    np.testing.assert_allclose(read_as_transformers_4(tmp_path, TARGET)[0], plan.frequencies(TARGET)[0])


def test_a_top_level_original_length_is_not_published(tmp_path: Path) -> None:
    """vLLM would serve no more than that, and transformers 5 would believe it before the one in the dict."""
    _, plan = published("yarn", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"original_max_position_embeddings": 32, "custom": [1]}))
    plan.write_config(tmp_path)
    written = json.loads(path.read_text())
    assert "original_max_position_embeddings" not in written
    assert written["custom"] == [1]


@pytest.mark.parametrize("window", [2048, 4096])
def test_phi3_keeps_its_top_level_original_where_its_class_would_fill_in_another(window: int, tmp_path: Path) -> None:
    config = Phi3Config(
        hidden_size=32, num_attention_heads=2, max_position_embeddings=window, original_max_position_embeddings=window
    )
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    plan = plan_rope(config, 4 * window, "longrope", factors=factors, packed_rows=False)
    plan.apply(config)
    config.save_pretrained(tmp_path)
    plan.write_config(tmp_path)
    reread = AutoConfig.from_pretrained(tmp_path)
    assert reread.original_max_position_embeddings == reread.rope_parameters["original_max_position_embeddings"] == window
    assert plan.servable_by()["vllm"] != ""


def test_writing_is_deterministic_and_can_be_repeated(tmp_path: Path) -> None:
    _, plan = published("yarn", tmp_path)
    first = (tmp_path / "config.json").read_bytes()
    plan.write_config(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == first
    assert list(json.loads(first)) == sorted(json.loads(first))


def test_a_plan_survives_what_extending_the_maximum_first_would_break() -> None:
    config = base()
    config.max_position_embeddings = TARGET  # a naive extension records the extended length as the original
    config.rope_parameters = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 50_000.0}
    config.standardize_rope_params()
    assert config.rope_parameters["original_max_position_embeddings"] == TARGET
    planned(base(), "yarn").apply(config)
    config.standardize_rope_params()
    assert config.rope_parameters["original_max_position_embeddings"] == WINDOW


def test_a_stray_top_level_original_does_not_win_over_the_plan() -> None:
    config = base(original_max_position_embeddings=32)
    planned(config, "yarn").apply(config)
    model = LlamaForCausalLM(config)
    np.testing.assert_allclose(computed(model, TARGET)[0], planned(base(), "yarn").frequencies(TARGET)[0], rtol=1e-5)
    assert config.rope_parameters["original_max_position_embeddings"] == WINDOW


def test_dynamic_scales_nothing_if_the_extended_maximum_is_published() -> None:
    config = base()
    plan = planned(config, "dynamic")
    plan.apply(config)
    right = computed(LlamaForCausalLM(config), TARGET)[0]
    config.max_position_embeddings = TARGET
    wrong = computed(LlamaForCausalLM(config), TARGET)[0]
    unscaled = plan_rope(base(), TARGET, "dynamic").frequencies(WINDOW)[0]
    np.testing.assert_allclose(wrong, unscaled, rtol=1e-5)
    np.testing.assert_allclose(right, plan.frequencies(TARGET)[0], rtol=1e-5)
    assert right[-1] < wrong[-1] / 4


def test_longrope_trains_the_short_factors_on_packed_rows() -> None:
    """Why it is refused there: a row of TARGET tokens in short documents has no position beyond the window."""
    config = base()
    plan = planned(config, "longrope")
    plan.apply(config)
    rotary = LlamaForCausalLM(config).model.rotary_emb
    rotary(torch.zeros(1), torch.arange(TARGET)[None] % WINDOW)
    np.testing.assert_allclose(rotary.inv_freq.double().numpy(), plan.frequencies(WINDOW)[0], rtol=1e-5)


@pytest.mark.parametrize("method", ["linear", "dynamic", "ntk", "yarn", "llama3"])
def test_partial_rotation_under_other_names_survives_publishing(method: Any, tmp_path: Path) -> None:
    config = GPTNeoXConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0, "partial_rotary_factor": 0.5},
    )
    plan = plan_rope(config, TARGET, method)
    plan.apply(config)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    plan.write_config(tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for candidate in (model, reloaded):
        rotary = candidate.gpt_neox.rotary_emb
        rotary(torch.zeros(1), torch.arange(TARGET)[None])
        assert rotary.inv_freq.shape == (8,)
        np.testing.assert_allclose(rotary.inv_freq.double().numpy(), plan.frequencies(TARGET)[0], rtol=1e-5)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["rotary_pct"], written["rotary_emb_base"]) == (0.5, plan.rope_theta)


def test_a_published_model_is_a_base_again(tmp_path: Path) -> None:
    published("yarn", tmp_path)
    again = plan_rope(AutoConfig.from_pretrained(tmp_path), 2 * TARGET)
    assert (again.method, again.base_window, again.original_length, again.factor) == ("yarn", TARGET, WINDOW, 8.0)


def test_without_a_saved_model_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        planned(base(), "yarn").write_config(tmp_path)
