"""Time of a run from its operations, and the rules that say when chunks serve better than a longer window."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import PipelineParams
from data_schemas.rope_comparison import ContextGain
from data_schemas.storage import Storage
from ray_jobs.evaluate import compare_rope
from ray_jobs.finetune.planning import estimate
from ray_jobs.finetune.planning.advice import CorpusLengths, find_context_gain, find_corpus_lengths, reasons_to_chunk
from ray_jobs.finetune.planning.estimate import Speed, find_speed, measure_speed, run_flops, run_seconds
from ray_jobs.finetune.planning.shape import training_shape
from ray_jobs.prepare.ray_data import workers_for
from tasks.ingest import documents_stage as ingest
from tests.flows.small_run import small_params


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> PipelineParams:
    return PipelineParams.model_validate(small_params(tmp_path_factory.mktemp("estimate"), tokenizer))


def test_operations_of_a_run_by_hand(params: PipelineParams) -> None:
    """Two layers of width 32, 4 heads of 8 over 2 KV heads, MLP 48, vocabulary 384; 6 steps of 2 rows of 128 tokens."""
    params = params.model_copy(update={"training": params.training.model_copy(update={"full_attention_layers": "none"})})
    shape = training_shape(params)
    lora = 2 * (16 * (32 + 32) + 2 * 16 * (32 + 16) + 16 * (32 + 32))
    layers = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    matrices, trained = layers + lora + 384 * 32, lora + 384 * 32
    # Groups of 32: two heads see 4 x (32 x 33 / 2) pairs a document, two shifted ones 16, 3 x 32 and 16 tokens.
    pairs = 2 * 4 * (32 * 33 / 2) + 2 * (2 * (16 * 17 / 2) + 3 * (32 * 33 / 2))
    expected = 6 * 2 * (128 * (4 * matrices + 2 * trained) + 12 * 2 * 8 * pairs)
    assert run_flops(params, shape) == pytest.approx(expected)
    full = params.model_copy(update={"training": params.training.model_copy(update={"attention": "full"})})
    mixed = params.model_copy(update={"training": params.training.model_copy(update={"full_attention_steps": 3})})
    assert run_flops(mixed, shape) == pytest.approx((run_flops(params, shape) + run_flops(full, shape)) / 2)
    one_layer = params.model_copy(update={"training": params.training.model_copy(update={"full_attention_every": 2})})
    assert run_flops(one_layer, shape) == pytest.approx((run_flops(params, shape) + run_flops(full, shape)) / 2)
    retrieval = params.model_copy(update={"retrieval": params.retrieval.model_copy(update={"share": 0.5})})
    assert run_flops(retrieval, shape) == pytest.approx((run_flops(params, shape) + run_flops(full, shape)) / 2)
    talks = params.corpus.model_copy(
        update={"sources": tuple(s.model_copy(update={"instructions": "messages"}) for s in params.corpus.sources)}
    )
    asked = {"packing": params.packing.model_copy(update={"full_attention_conversations": True})}
    assert run_flops(params.model_copy(update=asked), shape) == run_flops(params, shape)  # documents alone
    assert run_flops(params.model_copy(update=asked | {"corpus": talks}), shape) == pytest.approx(run_flops(full, shape))
    auto = params.model_copy(update={"training": params.training.model_copy(update={"full_attention_layers": "auto"})})
    assert run_flops(auto, shape) == run_flops(one_layer, shape)
    compared = params.model_copy(update={"training": params.training.model_copy(update={"loss_weighting": "long_ce"})})
    # Two windows of 64 tokens, the base's, are read again for the targets from 64 on.
    second = 6 * 2 * (2 * 128 * matrices + 4 * 2 * 4 * 8 * 2 * (64 * 65 / 2))
    assert run_flops(compared, shape) - run_flops(params, shape) == pytest.approx(second)
    # A quarter of the rows is cut into two pieces of 64 tokens, the base's window, which attend in full.
    pieces = 6 * 2 * (128 * (4 * matrices + 2 * trained) + 12 * 2 * 8 * 4 * 2 * (64 * 65 / 2))
    for uncut, share in (
        (params, 0.25),
        (full, 0.25),
        (mixed, 0.25),
        (retrieval, 0.125),
    ):  # rows of retrieval documents are not cut
        cut = uncut.model_copy(update={"training": uncut.training.model_copy(update={"short_window_share": 0.25})})
        others = run_flops(retrieval, shape) - 0.125 * expected if uncut is retrieval else (1 - share) * run_flops(uncut, shape)
        assert run_flops(cut, shape) == pytest.approx(others + share * pieces)
    half = params.model_copy(update={"packing": params.packing.model_copy(update={"row_length": 64})})
    assert run_flops(half, shape) < run_flops(params, shape) / 2
    speed = Speed(1e9, "")
    one_worker = params.model_copy(update={"ray": params.ray.model_copy(update={"num_workers": 1})})
    assert run_seconds(one_worker, shape, speed) == pytest.approx(2 * run_seconds(params, shape, speed))


def test_a_slow_processor_is_measured_on_fewer_tokens(params: PipelineParams, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(estimate, "time", clock)
    monkeypatch.setattr(estimate, "_two_layers", lambda params, tokens: (lambda: clock.compute(tokens), OneFlopAToken(), 2))
    long = params.model_copy(update={"model": params.model.model_copy(update={"target_length": 4096})})
    shape = training_shape(params)
    for tokens_per_s, most in ((10.0, 64), (1000.0, 1024), (1e9, 4096)):
        clock.now, clock.tokens_per_s = 0.0, tokens_per_s
        speed = measure_speed(long, shape)
        assert speed is not None
        assert f"on {most:,} tokens" in speed.origin
        assert speed.flops_per_s == pytest.approx(tokens_per_s)
        assert clock.now < max(estimate.MOST_MEASURING_S, 3 * 64 / tokens_per_s)


class FakeClock:
    """Time goes on only while something is computed."""

    now, tokens_per_s = 0.0, 1.0

    def perf_counter(self) -> float:
        return self.now

    def compute(self, tokens: int) -> None:
        self.now += tokens / self.tokens_per_s


class OneFlopAToken:
    def step_flops(self, lengths: np.ndarray, group_size: int) -> float:
        return float(lengths.sum())


def test_speed_is_stated_or_measured_and_never_guessed(params: PipelineParams) -> None:
    shape = training_shape(params)
    stated = find_speed(params, shape, 250.0)
    assert stated is not None
    assert (stated.flops_per_s, "stated" in stated.origin) == (250e12, True)
    measured = find_speed(params, shape, None)
    assert measured is not None
    assert "measured here" in measured.origin
    assert 1e6 < measured.flops_per_s < 1e12
    on_gpu = params.model_copy(update={"ray": params.ray.model_copy(update={"use_gpu": True})})
    import torch

    if not torch.cuda.is_available():
        assert find_speed(on_gpu, shape, None) is None
    known = on_gpu.model_copy(update={"ray": on_gpu.ray.model_copy(update={"peak_tflops": 100.0})})
    peak = find_speed(known, shape, None)
    assert peak is not None
    assert peak.flops_per_s == pytest.approx(40e12)
    huge = replace(shape, num_total=10**11, num_frozen=10**11, num_layers=4)
    assert find_speed(params, huge, None) is None


def gain(ratio: float, low: float, high: float) -> ContextGain:
    return ContextGain(from_length=256, to_length=512, ratio=ratio, low=low, high=high)


FINE: dict[str, Any] = {
    "base_window": 512,
    "target_length": 2048,
    "training_required": True,
    "rows": 1000,
    "hours": 2.0,
    "budget_hours": None,
    "lengths": CorpusLengths(np.array([400, 1500, 2000, 1800]), "d"),
    "context_gain": gain(0.9, 0.85, 0.95),
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": CorpusLengths(np.array([400] * 99 + [600]), "d")}, "longer than the base's window"),
        ({"lengths": CorpusLengths(np.array([400, 90_000]), "d")}, "cut in any case"),
        ({"rows": 99}, "99 rows are too few"),
        ({"budget_hours": 1.5}, "about 2.0 h, more than the budget of 1.5 h: chunk"),
        ({"budget_hours": 1.5, "training_required": False}, "scaling only"),
        ({"context_gain": gain(0.99, 0.97, 1.01)}, "independent"),
    ],
)
def test_each_rule_speaks_alone(changes: dict[str, Any], words: str) -> None:
    assert reasons_to_chunk(**FINE) == []
    (reason,) = reasons_to_chunk(**{**FINE, **changes})
    assert words in reason


def test_what_is_unknown_is_no_reason() -> None:
    assert reasons_to_chunk(**{**FINE, "lengths": None, "context_gain": None, "hours": None, "budget_hours": 1.0}) == []
    assert reasons_to_chunk(**{**FINE, "training_required": False, "rows": 1}) == []


@pytest.mark.slow
def test_lengths_and_context_gain_are_found_without_a_run_record(
    params: PipelineParams, tokenizer: PreTrainedTokenizerFast
) -> None:
    from tasks.model.base_model import base_fingerprint

    storage = Storage(params.storage)
    assert find_corpus_lengths(params, storage, tokenizer) is None
    documents = ingest.run(params, storage, lambda num_bytes: workers_for(params, num_bytes), lambda line: None)
    lengths = find_corpus_lengths(params, storage, tokenizer)
    assert lengths is not None
    assert lengths.documents_digest == documents.digest
    texts = [p.read_text() for p in Path(params.corpus.sources[0].uri).glob("story-*")]
    whole = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert len(lengths.tokens) == documents.manifest.summary["num_train"]
    assert lengths.tokens.mean() == pytest.approx(np.mean(whole), rel=0.05)
    assert lengths.share_beyond(64) == 1.0
    assert lengths.share_beyond(10**6) == 0.0
    other = params.model_copy(update={"corpus": params.corpus.model_copy(update={"split_seed": 9})})
    assert find_corpus_lengths(other, storage, tokenizer) is None
    assert find_context_gain(storage, documents.digest, base_fingerprint(params.model)) is None
    compared = compare_rope.run(params, storage, documents, 2, lambda line: None)
    found = find_context_gain(storage, documents.digest, base_fingerprint(params.model))
    assert found == compare_rope.load_comparison(compared).context_gain
    assert find_context_gain(storage, documents.digest, "another base") is None
