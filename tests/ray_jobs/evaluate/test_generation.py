"""Greedy generation against `model.generate`, token for token, and what it saves."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3Config,
)

from ray_jobs.evaluate.generation import MAX_DRAFT, generate, generate_scored, look_up
from ray_jobs.evaluate.scoring import Window, score_windows
from ray_jobs.evaluate.tree_passes import can_share

VOCAB, EOS = 96, [1, 7, 20, 33, 46, 59, 72]
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}


def tiny(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def prompts_with_common_beginnings(num_hay: int = 83) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    hay, needle, question = (rng.integers(2, VOCAB, n).astype(np.int32) for n in (num_hay, 9, 5))
    cuts = (0, num_hay // 4, num_hay // 2, num_hay)
    return [np.concatenate([hay[:cut], needle, hay[cut:], question[:end]]) for cut in cuts for end in (0, 3, 5)]


def by_transformers(model: Any, prompt: np.ndarray, limit: int) -> list[int]:
    ids = torch.from_numpy(prompt.astype(np.int64))[None]
    config = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=EOS, pad_token_id=1)
    new = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, len(prompt) :].tolist()
    return new[: next((i for i, token in enumerate(new) if token in EOS), len(new))]


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES),
        Qwen3Config(**SIZES),
        MistralConfig(**SIZES, sliding_window=16),
        LlamaConfig(**SIZES, rope_parameters=DYNAMIC),
    ],
    ids=["llama", "qwen3", "sliding-window", "dynamic-rope"],
)
def test_tokens_are_those_of_transformers(config: PretrainedConfig) -> None:
    model, prompts = tiny(config), prompts_with_common_beginnings()
    limits = [1 + 2 * i for i in range(len(prompts))]
    ours = {i: new.tolist() for i, new in generate(model, prompts, limits, eos_ids=EOS, batch_tokens=512)}
    assert sorted(ours) == list(range(len(prompts)))
    for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        # a fresh model, since dynamic RoPE remembers the longest sequence it has seen
        assert ours[index] == by_transformers(tiny(config), prompt, limit)
    assert any(len(new) < limits[i] for i, new in ours.items()), "no prompt met an end of sequence"
    assert any(len(new) == limits[i] > 1 for i, new in ours.items()), "no prompt met its limit"


def by_argmax(model: Any, prompt: np.ndarray, limit: int) -> list[int]:
    """A forward pass over the whole text for each token: no generation config has a say."""
    text = prompt.astype(np.int64).tolist()
    for _ in range(limit):
        with torch.inference_mode():
            token = int(model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1].argmax())
        if token in EOS:
            break
        text.append(token)
    return text[len(prompt) :]


@pytest.mark.parametrize(
    "config",
    # A window beyond all texts: the same model as the first, on the path without a shared cache.
    [LlamaConfig(**SIZES), MistralConfig(**SIZES, sliding_window=4096)],
    ids=["shared", "alone"],
)
def test_penalties_in_the_model_s_files_change_no_token(config: PretrainedConfig) -> None:
    """Else arms that cannot share a cache would be decoded by another rule than those that can."""
    model, prompts = tiny(config), prompts_with_common_beginnings()
    own = GenerationConfig(repetition_penalty=5.0, no_repeat_ngram_size=2, min_new_tokens=3, eos_token_id=1, pad_token_id=1)
    model.generation_config = own
    ours = {i: new.tolist() for i, new in generate(model, prompts, [16] * len(prompts), eos_ids=EOS, batch_tokens=512)}
    expected = {i: by_argmax(model, prompt, 16) for i, prompt in enumerate(prompts)}
    assert ours == expected
    assert model.generation_config is own, "whose end-of-sequence tokens are read for the next unit"
    penalised = [by_transformers(model, prompt, 16) for prompt in prompts]
    assert penalised != list(expected.values()), "the penalties would have been seen"


@pytest.mark.parametrize("config", [LlamaConfig(**SIZES), MistralConfig(**SIZES, sliding_window=16)], ids=["shared", "alone"])
def test_scores_come_with_the_same_tokens(config: PretrainedConfig) -> None:
    """Whatever the canonical answer is, and however much of it is right."""
    model, prompts = tiny(config), prompts_with_common_beginnings()
    limits = [9] * len(prompts)
    alone = dict(generate(model, prompts, limits, eos_ids=EOS, batch_tokens=512))
    answers = [np.append(alone[i][:i], [3, 5]).astype(np.int32) for i in range(len(prompts))]
    expected = dict(
        score_windows(
            model, [Window(np.concatenate([p, a]), len(a)) for p, a in zip(prompts, answers, strict=True)], batch_tokens=512
        )
    )
    done = list(generate_scored(model, prompts, answers, limits, eos_ids=EOS, batch_tokens=512))
    assert sorted(index for index, _, _ in done) == list(range(len(prompts)))
    for index, new, score in done:
        assert new.tolist() == alone[index].tolist()
        np.testing.assert_allclose(score.logprobs, expected[index].logprobs, atol=1e-5)
        np.testing.assert_array_equal(score.greedy_ids, expected[index].greedy_ids)


def test_guesses_save_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that looks at nothing but the last token goes round in a circle; then what stood there is guessed right."""
    model = tiny(LlamaConfig(**SIZES))
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    expected = by_transformers(model, prompts_with_common_beginnings()[0], 120)
    prompt, limit = prompts_with_common_beginnings()[0], 120
    assert can_share(model), "which is tried with two forward passes"
    calls = []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *a, **k: calls.append(k["input_ids"].shape[1]) or forward(*a, **k))
    ((_, new),) = generate(model, [prompt], [limit], eos_ids=EOS, batch_tokens=512)
    assert new.tolist() == expected
    assert len(calls) < len(new) / 4
    assert max(calls[1:]) <= MAX_DRAFT + 1


def test_common_beginnings_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = tiny(LlamaConfig(**SIZES)), prompts_with_common_beginnings()
    assert can_share(model)
    tokens = []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *a, **k: tokens.append(k["input_ids"].shape[1]) or forward(*a, **k))
    dict(generate(model, prompts, [1] * len(prompts), eos_ids=EOS, batch_tokens=512))
    beginnings = {p[:n].tobytes() for p in prompts for n in range(1, len(p) + 1)}
    assert sum(tokens) == len(beginnings)


@pytest.mark.parametrize("batch_tokens", [1, 200, 100_000])
def test_prompts_of_a_group_are_continued_together(monkeypatch: pytest.MonkeyPatch, batch_tokens: int) -> None:
    model, prompts = tiny(LlamaConfig(**SIZES)), prompts_with_common_beginnings()
    expected = {i: by_transformers(model, prompt, 24) for i, prompt in enumerate(prompts)}
    assert can_share(model)
    calls = []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *a, **k: calls.append(k["input_ids"].shape[1]) or forward(*a, **k))
    ours = {i: new.tolist() for i, new in generate(model, prompts, [24] * len(prompts), eos_ids=EOS, batch_tokens=batch_tokens)}
    assert ours == expected
    if batch_tokens == 100_000:
        assert len(calls) <= 1 + max(map(len, expected.values()))
    else:
        assert max(calls) <= max(batch_tokens, max(map(len, prompts)))


class Counter:
    """Says the number after the last one; nothing of transformers but the call."""

    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=VOCAB))
    device = torch.device("cpu")

    def __call__(self, input_ids: torch.Tensor, use_cache: bool, logits_to_keep: int) -> Any:
        logits = torch.nn.functional.one_hot((input_ids + 1) % VOCAB, VOCAB).float()
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])

    forward = __call__


def test_a_model_with_nothing_but_a_forward_pass() -> None:
    prompts = [np.array(p, np.int32) for p in ([8, 9], [21], [4])]
    new = {i: tokens.tolist() for i, tokens in generate(Counter(), prompts, [4, 2, 9], eos_ids=EOS, batch_tokens=64)}
    assert new == {0: [10, 11, 12, 13], 1: [22, 23], 2: [5, 6]}  # 7 ends


def test_what_cannot_be_continued_is_refused() -> None:
    model = tiny(LlamaConfig(**SIZES))
    for prompts, limits in ([[np.empty(0, np.int32)], [3]], [[np.array([4], np.int32)], [0]], [[], [1]]):
        with pytest.raises(ValueError, match="at least one token"):
            list(generate(model, prompts, limits, eos_ids=EOS, batch_tokens=64))
    assert list(generate(model, [], [], eos_ids=EOS, batch_tokens=64)) == []


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 6))
def test_guesses_are_what_followed_the_same_tokens(tokens: list[int], limit: int) -> None:
    text = np.array(tokens, np.int32)
    guess = look_up(text, limit).tolist()
    starts = {n: [i + n for i in range(len(tokens) - n) if tokens[i : i + n] == tokens[-n:]] for n in (3, 2)}
    found = starts[3] or starts[2]
    assert len(guess) == (limit if found else 0)
    for ahead, token in enumerate(guess):
        followed = tokens[max(found) :]
        assert token == followed[ahead % len(followed)]


@settings(max_examples=8)
@given(data=st.data())
def test_generation_always_ends_and_never_passes_its_limit(data: st.DataObject) -> None:
    model = tiny(LlamaConfig(**SIZES))
    num = data.draw(st.integers(1, 4))
    prompts = [np.array(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=12)), np.int32) for _ in range(num)]
    limits = [data.draw(st.integers(1, 20)) for _ in range(num)]
    ours = dict(generate(model, prompts, limits, eos_ids=EOS, batch_tokens=64))
    for index, prompt in enumerate(prompts):
        assert ours[index].tolist() == by_transformers(model, prompt, limits[index])
