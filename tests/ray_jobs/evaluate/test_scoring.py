"""Log-probabilities against an obvious float64 loop, with and without shared beginnings, and a model whose behaviour is known."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from ray_jobs.evaluate import scoring, tree_attention, tree_passes
from ray_jobs.evaluate.scoring import TargetScores, Window, score_positions, score_windows
from ray_jobs.evaluate.tree_passes import can_share
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.make import make_prompts
from tasks.evaluate.prompts.material import Haystack, Material

VOCAB = 384
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": None,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
}  # fmt: skip
KINDS: dict[str, tuple[PretrainedConfig, bool]] = {  # and whether beginnings may be shared
    "llama": (LlamaConfig(**SMALL), True),
    "one-kv-head": (LlamaConfig(**SMALL | {"num_key_value_heads": 1}), True),
    "yarn": (LlamaConfig(**SMALL, rope_parameters=YARN), True),
    "qwen3": (Qwen3Config(**SMALL), True),
    "mistral-without-window": (MistralConfig(**SMALL, sliding_window=None), True),
    "mistral-window": (MistralConfig(**SMALL, sliding_window=16), False),
    "gemma2-window-in-one-layer-and-soft-capping": (Gemma2Config(**SMALL, sliding_window=16, query_pre_attn_scalar=8), False),
    "dynamic": (LlamaConfig(**SMALL, rope_parameters=DYNAMIC), False),
    "longrope": (LlamaConfig(**SMALL, rope_parameters=LONGROPE), False),
}


def tiny(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    attention = "eager" if config.model_type == "gemma2" else "sdpa"
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@pytest.fixture(scope="module")
def llama() -> Any:
    model = tiny(LlamaConfig(**SMALL))
    assert can_share(model), "which is tried with two forward passes"
    return model


@pytest.fixture(scope="module")
def llama_alone() -> Any:
    """The same model, in a form whose beginnings cannot be shared: its window is beyond all texts."""
    return tiny(MistralConfig(**SMALL, sliding_window=4096))


def random_tokens(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, length).astype(np.int32)


def grid_of_depths(num_hay: int, num_depths: int = 4) -> list[Window]:
    """A needle at several depths of one haystack, a control, and answers of two lengths."""
    hay, needle, ending = random_tokens(num_hay), random_tokens(7, seed=1), random_tokens(9, seed=2)
    cuts = [round(num_hay * i / (num_depths - 1)) for i in range(num_depths)]
    bodies = [np.concatenate([hay[:cut], needle, hay[cut:]]) for cut in cuts] + [
        np.concatenate([hay, random_tokens(7, seed=3)])
    ]
    return [Window(np.concatenate([body, ending[:n]]), n - 3) for body in bodies for n in (6, 9)]


def reference(model: Any, tokens: np.ndarray, num_targets: int) -> np.ndarray:
    """One token at a time, the whole forward pass, all logits, float64."""
    exact = model.double()
    logprobs = []
    with torch.no_grad():
        for position in range(len(tokens) - num_targets, len(tokens)):
            logits = exact(input_ids=torch.tensor(tokens[None, :position], dtype=torch.long), use_cache=False).logits
            logprobs.append(torch.log_softmax(logits[0, -1], dim=-1)[int(tokens[position])].item())
    model.float()
    return np.array(logprobs)


def plain(config: PretrainedConfig, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and most likely ids by one forward pass of a model that has seen nothing else."""
    with torch.no_grad():
        logits = tiny(config)(input_ids=torch.tensor(window.tokens[None].astype(np.int64)), use_cache=False).logits[0, :-1]
    targets = torch.tensor(window.tokens[1:].astype(np.int64))[:, None]
    logprobs = torch.log_softmax(logits.double(), -1).gather(1, targets)[:, 0]
    return logprobs[-window.num_targets :].numpy(), logits.argmax(-1)[-window.num_targets :].numpy()


def score_all(model: Any, windows: Sequence[Window], batch_tokens: int = 512) -> list[TargetScores]:
    done = list(score_windows(model, windows, batch_tokens=batch_tokens))
    assert sorted(index for index, _ in done) == list(range(len(windows)))
    return [score for _, score in sorted(done, key=lambda pair: pair[0])]


@pytest.mark.parametrize("kind", KINDS)
def test_every_window_scores_as_in_a_forward_pass_of_its_own(kind: str) -> None:
    config, shares = KINDS[kind]
    model = tiny(config)
    assert can_share(model) == shares
    windows = [*grid_of_depths(101), *grid_of_depths(37), Window(random_tokens(2, seed=5), 1), *grid_of_depths(101)[:3]]
    np.random.default_rng(0).shuffle(windows)  # type: ignore[arg-type]
    for window, score in zip(windows, score_all(model, windows), strict=True):
        logprobs, greedy = plain(config, window)
        np.testing.assert_allclose(score.logprobs, logprobs, atol=1e-4)
        np.testing.assert_array_equal(score.greedy_ids, greedy)
        assert score.logprobs.dtype == np.float64


@pytest.mark.parametrize("kind", ["llama", "yarn", "qwen3", "mistral-window"])
def test_logprobs_equal_a_float64_loop(kind: str) -> None:
    """So does perplexity: of the last tokens, and of a whole document."""
    model = tiny(KINDS[kind][0])
    windows = grid_of_depths(40)
    for window, score in zip(windows, score_all(model, windows), strict=True):
        np.testing.assert_allclose(score.logprobs, reference(model, window.tokens, window.num_targets), atol=2e-5)
    document = random_tokens(75)
    expected = reference(model, document, len(document) - 1)
    got = score_positions(model, document, max_logits=11 * VOCAB)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert math.exp(-got.mean()) == pytest.approx(math.exp(-expected.mean()), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_positions_score_as_in_one_forward_pass(kind: str) -> None:
    config, _ = KINDS[kind]
    tokens = random_tokens(90)
    got = score_positions(tiny(config), tokens, max_logits=16 * VOCAB)
    assert got.shape == (89,)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, plain(config, Window(tokens, 89))[0], atol=1e-5)
    assert score_positions(tiny(config), tokens[:1]).shape == (0,)


def test_logits_of_all_positions_are_made_in_pieces(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    weight = llama.lm_head.weight
    monkeypatch.setattr(llama.lm_head, "forward", lambda hidden: rows.append(hidden.shape[-2]) or hidden @ weight.T)
    score_positions(llama, random_tokens(100), max_logits=16 * VOCAB)
    assert max(rows) == 16


def lengths_of_passes(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *a, **k: shapes.append(tuple(k["input_ids"].shape)) or forward(*a, **k))
    return shapes


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_each_beginning_is_computed_once(llama: Any, monkeypatch: pytest.MonkeyPatch, batch_tokens: int) -> None:
    shapes = lengths_of_passes(llama, monkeypatch)
    windows = grid_of_depths(200, num_depths=5)
    score_all(llama, windows, batch_tokens=batch_tokens)
    beginnings = {w.tokens[:n].tobytes() for w in windows for n in range(1, len(w.tokens))}
    assert sum(length for _, length in shapes) == len(beginnings) < 0.6 * sum(len(w.tokens) for w in windows)
    assert all(length <= max(batch_tokens, 217) for _, length in shapes)
    assert (len(shapes) == 1) == (batch_tokens > len(beginnings))


def test_what_later_passes_need_is_kept_no_longer_and_no_more(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    logits = tree_passes.Passes.logits

    def counted(self: Any, branches: Any) -> Any:
        result = logits(self, branches)
        held.append(sum(key.shape[2] for (layer, _), (key, _) in self._kept.items() if layer == 0))
        return result

    monkeypatch.setattr(tree_passes.Passes, "logits", counted)
    windows = grid_of_depths(200, num_depths=5)
    score_all(llama, windows, batch_tokens=1)
    assert len(held) > 5
    assert max(held) <= 2 * max(len(w.tokens) for w in windows)
    held.clear()
    score_all(llama, windows, batch_tokens=100_000)
    assert held == [0], "one pass needs nothing of another"


@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_scores_do_not_depend_on_how_the_tree_is_cut(llama: Any, batch_tokens: int) -> None:
    windows = [*grid_of_depths(101), *grid_of_depths(60), Window(random_tokens(30, seed=9), 29)]
    for window, score in zip(windows, score_all(llama, windows, batch_tokens=batch_tokens), strict=True):
        logprobs, greedy = plain(LlamaConfig(**SMALL), window)
        np.testing.assert_allclose(score.logprobs, logprobs, atol=1e-4)
        np.testing.assert_array_equal(score.greedy_ids, greedy)


def test_devices_without_the_kernel_score_the_same_by_a_mask(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = grid_of_depths(101)
    whole = score_all(llama, windows)
    monkeypatch.setattr(tree_attention, "_block", tree_attention._masked)
    monkeypatch.setattr(tree_attention, "MAX_MASK", 110 * 7)
    for one, other in zip(whole, score_all(llama, windows), strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_the_last_layer_is_computed_for_targets_only(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    forward = llama.model.layers[-1].mlp.forward
    monkeypatch.setattr(llama.model.layers[-1].mlp, "forward", lambda x: rows.append(x.shape[1]) or forward(x))
    windows = grid_of_depths(101)
    score_all(llama, windows, batch_tokens=100_000)
    assert sum(rows) <= sum(w.num_targets for w in windows)
    assert not llama.model.layers[-1].mlp._forward_hooks


def test_a_model_is_left_as_it_was(llama: Any) -> None:
    windows = grid_of_depths(30)
    score_all(llama, windows)
    assert llama.config._attn_implementation == "sdpa"
    ids = torch.tensor(windows[0].tokens[None].astype(np.int64))
    with torch.inference_mode():
        np.testing.assert_array_equal(llama(ids).logits, tiny(LlamaConfig(**SMALL))(ids).logits)


def test_a_model_with_another_attention_is_not_put_into_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that attends by itself would see other branches."""
    from transformers.models.llama.modeling_llama import LlamaAttention, eager_attention_forward

    def own_attention(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k, v = (proj(hidden_states).view(shape).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        length = q.shape[2]
        mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
        out, _ = eager_attention_forward(self, q, k, v, mask, scaling=self.scaling)
        return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), None

    monkeypatch.setattr(LlamaAttention, "forward", own_attention)
    assert not can_share(tiny(LlamaConfig(**SMALL)))


def test_windows_of_one_length_are_batched_where_nothing_is_shared(llama_alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = lengths_of_passes(llama_alone, monkeypatch)
    windows = [Window(random_tokens(length, seed), 3) for seed, length in enumerate((30, 20, 30, 30, 20))]
    score_all(llama_alone, windows, batch_tokens=60)
    assert shapes == [(2, 20), (2, 30), (1, 30)]


def test_windows_with_nothing_in_common_are_put_one_after_another(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = lengths_of_passes(llama, monkeypatch)
    windows = [Window(random_tokens(length, seed), 3) for seed, length in enumerate((30, 20, 30, 30, 20))]
    score_all(llama, windows, batch_tokens=1000)
    assert shapes == [(1, 29 + 19 + 29 + 29 + 19)]


def test_equal_windows_are_computed_once(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = llama.model.forward
    monkeypatch.setattr(llama.model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    same = score_all(llama, [Window(random_tokens(30), 4)] * 3)
    assert len(calls) == 1
    np.testing.assert_array_equal(same[0].logprobs, same[2].logprobs)


@pytest.mark.parametrize("kind", ["llama", "mistral-window"])
def test_scores_do_not_depend_on_the_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    llama = tiny(KINDS[kind][0])
    windows = [Window(random_tokens(24, seed), n) for seed, n in enumerate((3, 8, 1, 5, 8, 2, 7))]
    one, many = score_all(llama, windows, batch_tokens=1), score_all(llama, windows, batch_tokens=24 * 3)
    monkeypatch.setattr(scoring, "MAX_LOGITS", VOCAB * 9 * 2)
    monkeypatch.setattr(tree_passes, "MAX_LOGITS", VOCAB * 9 * 2)
    few_logits = score_all(llama, windows, batch_tokens=10_000)
    for a, b, c, window in zip(one, many, few_logits, windows, strict=True):
        assert len(a.logprobs) == window.num_targets
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
        np.testing.assert_allclose(a.logprobs, c.logprobs, atol=1e-5)
        assert np.array_equal(a.greedy_ids, b.greedy_ids)


def test_logits_of_the_context_are_never_made(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    weight = llama.lm_head.weight
    monkeypatch.setattr(llama.lm_head, "forward", lambda hidden: rows.append(hidden.shape[1]) or hidden @ weight.T)
    windows = [*(Window(random_tokens(60, seed), 4) for seed in range(2)), *grid_of_depths(101)]
    score_all(llama, windows, batch_tokens=1)
    assert max(rows) <= 2 * 6, "of one sequence and the one that continues it"


def test_a_model_that_cannot_limit_its_logits_scores_the_same(llama: Any) -> None:
    class Older(torch.nn.Module):
        config, device = llama.config, llama.device

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
            return llama(input_ids=input_ids, use_cache=use_cache)

    windows = grid_of_depths(30)
    for old, new in zip(score_all(Older(), windows), score_all(llama, windows), strict=True):
        np.testing.assert_allclose(old.logprobs, new.logprobs, atol=1e-5)
    np.testing.assert_allclose(
        score_positions(Older(), windows[0].tokens), score_positions(llama, windows[0].tokens), atol=1e-5
    )


def test_wrong_windows_are_refused(llama: Any) -> None:
    for num_targets in (0, 20):
        with pytest.raises(ValueError, match="target counts"):
            Window(random_tokens(20), num_targets)
    assert score_all(llama, []) == []


class Copier:
    """Continues the three tokens it saw last as they went on before, if that was at most `reach` tokens ago."""

    def __init__(self, reach: int) -> None:
        self.reach = reach
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=VOCAB))
        self.device = torch.device("cpu")

    def __call__(self, input_ids: torch.Tensor, use_cache: bool, logits_to_keep: int) -> Any:
        logits = torch.zeros(*input_ids.shape, VOCAB)
        for row, ids in enumerate(input_ids.tolist()):
            for position in range(len(ids) - logits_to_keep, len(ids)):
                phrase = ids[position - 2 : position + 1]
                for earlier in range(position - 1, max(1, position - self.reach), -1):
                    if ids[earlier - 2 : earlier + 1] == phrase:
                        logits[row, position, ids[earlier + 1]] = 12.0
                        break
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])

    forward = __call__


def test_passkey_scores_tell_how_far_a_copying_model_reaches(tokenizer: PreTrainedTokenizerFast) -> None:
    line = "The valley is deep; the bridge is old, and a traveller looks back.\n"
    haystack = Haystack.of([tokenize("d", line * 120, tokenizer)])
    material = Material(tokenizer=tokenizer, haystack=haystack, num_depths=5, num_samples=4, seed=0)
    prompts = make_prompts("passkey", 600, material)
    assert len(prompts) == 4 * 5
    windows = [Window(np.concatenate([p.tokens, p.answer]), len(p.answer)) for p in prompts]
    for prompt, score in zip(prompts, score_all(Copier(reach=300), windows, batch_tokens=4096), strict=True):
        assert prompt.depth is not None
        is_correct = np.array_equal(score.greedy_ids, prompt.answer)
        if prompt.depth <= 0.25:  # about 400 tokens back
            assert not is_correct
        if prompt.depth >= 0.75:
            assert is_correct
            assert tokenizer.decode(score.greedy_ids).strip() == prompt.golds[0]
