"""Log-probabilities against an obvious float64 reference, and passkey scoring with a model whose behaviour is known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from data_schemas.errors import UserError
from ray_jobs.evaluate import arms, scoring
from ray_jobs.evaluate.arms import Workload, measure_arm
from ray_jobs.evaluate.scoring import TargetScores, score_batches
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.passkey import NEEDLE, Haystack, min_length, passkey_samples
from tasks.evaluate.perplexity import TargetDocument

SMALL: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


def tiny(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny(LlamaConfig(**SMALL))


def windows_of(count: int, length: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 384, length).astype(np.int32) for _ in range(count)]


def score_last_tokens(*args: Any, **kwargs: Any) -> list[TargetScores]:
    return [score for batch in score_batches(*args, **kwargs) for score in batch]


def reference(model: Any, window: np.ndarray, num_targets: int) -> np.ndarray:
    """One token at a time, all logits, float64."""
    exact = model.double()
    logprobs = []
    with torch.no_grad():
        for position in range(len(window) - num_targets, len(window)):
            logits = exact(input_ids=torch.tensor(window[None, :position], dtype=torch.long)).logits
            logprobs.append(torch.log_softmax(logits[0, -1], dim=-1)[int(window[position])].item())
    model.float()
    return np.array(logprobs)


@pytest.mark.parametrize("config", [LlamaConfig(**SMALL), MistralConfig(**SMALL, sliding_window=16), Qwen3Config(**SMALL)])
def test_logprobs_equal_a_float64_loop(config: PretrainedConfig) -> None:
    model = tiny(config)
    windows = windows_of(3, 40)
    for window, score in zip(windows, score_last_tokens(model, windows, [5, 8, 8], batch_tokens=80), strict=True):
        expected = reference(model, window, len(score.logprobs))
        np.testing.assert_allclose(score.logprobs, expected, atol=2e-5)
        assert score.logprobs.dtype == np.float64


def test_a_model_that_cannot_limit_its_logits_scores_the_same(llama: Any) -> None:
    class Older(torch.nn.Module):
        config, device = llama.config, llama.device

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
            return llama(input_ids=input_ids, use_cache=use_cache)

    windows = windows_of(2, 30)
    for old, new in zip(
        score_last_tokens(Older(), windows, [4, 4], batch_tokens=60),
        score_last_tokens(llama, windows, [4, 4], batch_tokens=60),
        strict=True,
    ):
        np.testing.assert_allclose(old.logprobs, new.logprobs, atol=1e-5)


def test_scores_do_not_depend_on_the_batch(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, num_targets = windows_of(7, 24), [3, 8, 1, 5, 8, 2, 7]
    one = score_last_tokens(llama, windows, num_targets, batch_tokens=1)
    many = score_last_tokens(llama, windows, num_targets, batch_tokens=24 * 3)
    monkeypatch.setattr(scoring, "MAX_LOGITS", 384 * 9 * 2)
    few_logits = score_last_tokens(llama, windows, num_targets, batch_tokens=10_000)
    for a, b, c, n in zip(one, many, few_logits, num_targets, strict=True):
        assert len(a.logprobs) == n
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
        np.testing.assert_allclose(a.logprobs, c.logprobs, atol=1e-5)
        assert np.array_equal(a.greedy_ids, b.greedy_ids)


def test_logits_of_the_context_are_never_made(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    monkeypatch.setattr(llama.lm_head, "forward", lambda hidden: rows.append(hidden.shape) or hidden @ llama.lm_head.weight.T)
    score_last_tokens(llama, windows_of(2, 60), [4, 4], batch_tokens=120)
    assert [tuple(shape[:2]) for shape in rows] == [(2, 5)]


def test_wrong_windows_are_refused(llama: Any) -> None:
    with pytest.raises(ValueError, match="one length"):
        score_last_tokens(llama, [*windows_of(1, 20), *windows_of(1, 21)], [2, 2], batch_tokens=64)
    with pytest.raises(ValueError, match="target counts"):
        score_last_tokens(llama, windows_of(1, 20), [20], batch_tokens=64)
    assert score_last_tokens(llama, [], [], batch_tokens=64) == []


class Copier:
    """Continues the pass key it saw last, if that stands within `reach` tokens of the end; otherwise it guesses digits."""

    def __init__(self, reach: int) -> None:
        self.reach = reach
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=384))
        self.device = torch.device("cpu")

    def __call__(self, input_ids: torch.Tensor, use_cache: bool, logits_to_keep: int) -> Any:
        logits = torch.zeros(*input_ids.shape, 384)
        for row, ids in enumerate(input_ids.tolist()):
            for position in range(len(ids) - logits_to_keep, len(ids)):
                # the three tokens before are looked up in what came earlier: an induction head with a limited reach
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
    length, depths = min_length(tokenizer) + 400, (0.0, 0.25, 0.5, 0.75, 1.0)
    samples = passkey_samples(haystack, tokenizer, length=length, depths=depths, num_samples=4, seed=0)
    workload = Workload((), (), {length: tuple(samples)})
    needle_tokens = len(tokenizer(NEEDLE.format(key="12345"))["input_ids"])
    _, table = measure_arm(
        Copier(reach=200 + needle_tokens), "base", workload, tokenizer, batch_tokens=4096, progress=lambda _: None
    )
    rows = table.to_pylist()
    assert len(rows) == 4 * 5
    for row in rows:
        assert row["gain"] == row["logprob"] - row["control_logprob"]
        if row["depth"] <= 0.25:  # at least 300 tokens back: out of reach, so no better than without the needle
            assert not row["correct"]
            assert abs(row["gain"]) < 1e-6
        if row["depth"] >= 0.75:
            assert row["correct"]
            assert row["output"].strip() == row["gold"]
            assert row["gain"] > 10


def test_scaled_by_length_models_are_measured_as_if_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    """Dynamic RoPE remembers the longest sequence; no length may be scored with the frequencies of another."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    config = LlamaConfig(**SMALL, rope_parameters=rope)
    document = TargetDocument("d", np.random.default_rng(1).integers(0, 384, 300).astype(np.int32), 8)
    workload = Workload((document,), (32, 64, 128, 256), {})
    table, _ = measure_arm(tiny(config), "base", workload, tokenizer, batch_tokens=256, progress=lambda _: None)
    for row in table.to_pylist():
        (alone,) = score_last_tokens(tiny(config), [document.window(row["length"])], [8], batch_tokens=256)
        assert row["nll"] == pytest.approx(-alone.logprobs.sum(), abs=1e-4)


def test_progress_counts_whole_batches(llama: Any, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "_SECONDS_BETWEEN_REPORTS", 0)
    documents = tuple(TargetDocument(f"d{i}", window, 8) for i, window in enumerate(windows_of(5, 32)))
    told: list[str] = []
    measure_arm(llama, "base", Workload(documents, (32,), {}), tokenizer, batch_tokens=64, progress=told.append)
    assert [line.split(",")[0] for line in told] == [f"evaluate base: perplexity at 32: {n}/5 documents" for n in (0, 2, 4, 5)]
    assert told[1].endswith("s left")


def test_a_broken_model_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny(LlamaConfig(**SMALL))
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    workload = Workload((TargetDocument("d", np.arange(40, dtype=np.int32), 8),), (32,), {})
    with pytest.raises(UserError, match="fine_tuned model gives log-probabilities that are not finite at 32 tokens"):
        measure_arm(model, "fine_tuned", workload, tokenizer, batch_tokens=256, progress=lambda _: None)
