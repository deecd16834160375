"""Comparing RoPE methods: the statistics on made-up rows, and the whole on a tiny base and documents."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from data_schemas.errors import UserError
from data_schemas.params import ModelParams, PipelineParams
from data_schemas.rope_comparison import RopeComparisonSettings
from data_schemas.samples import PERPLEXITY_SAMPLES
from data_schemas.storage import Storage
from ray_jobs.evaluate import compare_rope
from ray_jobs.evaluate.compare_rope_report import build_comparison, comparison_table
from ray_jobs.prepare.ray_data import workers_for
from tasks.ingest import documents_stage as ingest
from tests.flows.small_run import small_params
from tests.heard import texts_into

SETTINGS = RopeComparisonSettings(
    base_window=512, target_length=2048, lengths=(256, 512, 2048), target_tokens=10, confidence=0.95, seed=0
)


def samples(extra_nats: dict[tuple[str, int], float], noise: dict[str, float], num_documents: int = 12) -> pa.Table:
    """Documents differ widely; a method adds nats a token at a length, and noise of its own a document."""
    draw = np.random.default_rng(1)
    hardness = draw.normal(2.0, 0.7, num_documents)
    rows = []
    for method in dict.fromkeys(method for method, _ in extra_nats):
        own = draw.normal(0, noise.get(method, 0.0), num_documents)
        own -= own.mean()
        rows += [
            {"arm": method, "length": length, "doc_id": f"d{i}", "target_start": 0, "num_tokens": 10,
             "nll": 10 * (hardness[i] + extra_nats[method, length] + own[i])}
            for length in SETTINGS.lengths for i in range(num_documents)
        ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PERPLEXITY_SAMPLES)


def nats(**methods: tuple[float, float, float]) -> dict[tuple[str, int], float]:
    return {(m, n): value for m, values in methods.items() for n, value in zip(SETTINGS.lengths, values, strict=True)}


def test_a_clear_difference_is_told_although_documents_differ_more() -> None:
    table = samples(nats(base=(0.1, 0.0, 3.0), yarn=(0.15, 0.05, 0.0), linear=(1, 1, 0.2)), {"linear": 0.05})
    report = build_comparison(table, SETTINGS, {}, {"longrope": "no factors."})
    assert (report.best, report.equally_good) == ("yarn", ())
    assert [m.method for m in report.methods] == ["yarn", "linear", "base"]
    linear = report.methods[1]
    assert linear.verdict == "worse"
    assert linear.against_best.low < math.exp(0.2) < linear.against_best.high
    yarn = report.methods[0]
    assert yarn.at_window.ratio == pytest.approx(math.exp(0.05))
    assert yarn.cells[0].low < yarn.cells[0].perplexity < yarn.cells[0].high
    assert report.context_gain.ratio == pytest.approx(math.exp(-0.1))
    assert any("worse by more than" in sentence for sentence in report.findings)
    assert any("uses context" in sentence for sentence in report.findings)


def test_a_difference_within_the_noise_is_not_called_one() -> None:
    table = samples(nats(base=(0.0, 0.0, 2.0), yarn=(0, 0, 0.0), ntk=(0, 0, 0.01)), {"ntk": 0.4, "yarn": 0.4})
    report = build_comparison(table, SETTINGS, {}, {})
    assert len(report.equally_good) == 1
    assert {report.best, *report.equally_good} == {"yarn", "ntk"}
    assert any("Not told apart" in sentence for sentence in report.findings)
    assert any("shows no gain" in sentence for sentence in report.findings)


def test_each_comparison_is_stricter_where_there_are_more() -> None:
    two = build_comparison(samples(nats(base=(0, 0, 1), yarn=(0, 0, 0)), {}), SETTINGS, {}, {})
    four = build_comparison(
        samples(nats(base=(0, 0, 1), yarn=(0, 0, 0), ntk=(0, 0, 1), linear=(0, 0, 1), dynamic=(0, 0, 1)), {}), SETTINGS, {}, {}
    )
    assert two.settings.level_of_each_comparison == pytest.approx(0.95)
    assert four.settings.level_of_each_comparison == pytest.approx(0.9875)


def test_rows_do_not_depend_on_the_order_of_samples() -> None:
    table = samples(nats(base=(0.1, 0.0, 3.0), yarn=(0.15, 0.05, 0.0), linear=(1, 1, 0.2)), {"linear": 0.3})
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    assert build_comparison(table, SETTINGS, {}, {}) == build_comparison(shuffled, SETTINGS, {}, {})


def test_candidates_of_a_llama3_base_are_its_own_scaling_and_a_raised_theta(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, rope_parameters=rope | {"original_max_position_embeddings": 64},
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    found = compare_rope.candidates(ModelParams(base=str(tmp_path), target_length=512))
    assert set(found.plans) == {"llama3", "ntk"}
    assert found.plans["llama3"].factor == 8.0
    assert set(found.refused) == {"linear", "dynamic", "yarn", "longrope"}
    stated = compare_rope.candidates(ModelParams(base=str(tmp_path), target_length=512, rope_theta=3e6))
    assert stated.plans["theta"].rope_theta == 3e6
    assert {*stated.plans, *stated.refused} == {*found.plans, *found.refused, "theta"}


def test_factors_with_two_lists_are_compared_because_nothing_is_trained(tmp_path: Path) -> None:
    LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=128,
    ).save_pretrained(tmp_path)  # fmt: skip
    lists = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    (tmp_path / "factors.json").write_text(json.dumps(lists))
    model = ModelParams(
        base=str(tmp_path), target_length=512, rope_method="longrope", rope_factors_file=str(tmp_path / "factors.json")
    )
    found = compare_rope.candidates(model)
    assert "longrope" not in found.refused
    assert {name: found.plans["longrope"].rope_parameters[name] for name in lists} == lists


def test_a_comparison_depends_on_the_space_that_may_refuse_the_critical_pair(tmp_path: Path) -> None:
    given = {"run_name": "x", "storage": str(tmp_path), "corpus": {"sources": ["nowhere"]}}
    spaces = [
        PipelineParams.model_validate(
            given | {"model": {"base": "demo", "target_length": 2048}, "rope_search": {"space": space}}
        )
        for space in ("compact", "full")
    ]
    compact, full = (compare_rope.identity(params, "documents", 4) for params in spaces)
    assert compact != full


@pytest.mark.slow
def test_a_comparison_needs_documents_and_a_base_only(tmp_path: Path, tokenizer: object) -> None:
    params = PipelineParams.model_validate(small_params(tmp_path, tokenizer))  # type: ignore[arg-type]
    storage, said = Storage(params.storage), []
    documents = ingest.run(params, storage, lambda num_bytes: workers_for(params, num_bytes), lambda line: None)
    artifact = compare_rope.run(params, storage, documents, 4, texts_into(said))
    report = compare_rope.load_comparison(artifact)
    assert {m.method for m in report.methods} == {"base", "linear", "dynamic", "ntk", "yarn", "llama3"}
    assert set(report.refused) == {"longrope", "ntk_critical"}
    assert "too few for a search" in report.refused["ntk_critical"]
    assert report.settings.lengths == (32, 64, 128)
    assert sorted(p.name for p in artifact.path.glob("rope_*")) == [
        "rope_comparison.json",
        "rope_comparison.png",
        "rope_samples.parquet",
    ]
    assert any("dynamic" in line and "at 128" in line for line in said)
    dynamic = next(m for m in report.methods if m.method == "dynamic")
    assert dynamic.at_window.ratio == pytest.approx(1.0)  # it scales nothing within the window
    columns, rows = comparison_table(report)
    assert all(len(row) == len(columns) for row in rows)
    assert rows[0][-1] == "best"
    assert compare_rope.run(params, storage, documents, 4, texts_into(said)).reused


def test_documents_shorter_than_the_target_are_refused_in_one_sentence(tmp_path: Path, tokenizer: object) -> None:
    params = PipelineParams.model_validate(
        small_params(tmp_path, tokenizer, model={"base": str(tmp_path / "base"), "target_length": 4096})  # type: ignore[arg-type]
    )
    storage = Storage(params.storage)
    documents = ingest.run(params, storage, lambda num_bytes: workers_for(params, num_bytes), lambda line: None)
    with pytest.raises(UserError, match="at least 4096 tokens"):
        compare_rope.run(params, storage, documents, 4, lambda line: None)


@pytest.mark.slow
def test_the_unscaled_base_at_its_window_is_the_base_itself(tmp_path: Path, tokenizer: object) -> None:
    """The arm "base" is scored with the loss a plain forward pass of the base gives."""
    import torch

    params = PipelineParams.model_validate(small_params(tmp_path, tokenizer))  # type: ignore[arg-type]
    storage = Storage(params.storage)
    documents = ingest.run(params, storage, lambda num_bytes: workers_for(params, num_bytes), lambda line: None)
    artifact = compare_rope.run(params, storage, documents, 2, lambda line: None)
    import pyarrow.parquet as pq

    rows = [
        r for r in pq.read_table(artifact.path / "rope_samples.parquet").to_pylist() if (r["arm"], r["length"]) == ("base", 64)
    ]
    from tasks.evaluate.heldout import read_heldout, tokenize

    texts = dict(read_heldout(documents.path, min_bytes=1))
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base").eval()
    for row in rows:
        ids = torch.from_numpy(tokenize(row["doc_id"], texts[row["doc_id"]], tokenizer).token_ids[-64:].astype(np.int64))
        with torch.no_grad():
            logprobs = model(ids[None]).logits[0].log_softmax(-1)
        expected = -sum(logprobs[i - 1, ids[i]].item() for i in range(48, 64))
        assert row["nll"] == pytest.approx(expected, rel=1e-4)
