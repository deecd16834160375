"""The serving contract by rule: each consumer's reading of a config against the plan, for every method."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.servable_models import METHODS, TARGET, WINDOW, publish_tiny, tiny_plan
from data_schemas.consumers import CONSUMERS
from tasks.model.rope_config import published_config
from tasks.model.rope_plan import plan_rope
from tasks.model.rotary_modules import forget_lengths
from tasks.publish.serving import next_tokens
from tasks.publish.serving.contract import check_contract, contract_problems, trained_as_planned
from tasks.publish.serving.gguf import gguf_route
from tasks.publish.serving.next_tokens import Prompt, Recording
from tasks.publish.serving.rules import READERS, Written, sglang_context_length, spelling_problems
from tasks.publish.serving.table import serving_table


def written(method: str, **changes: object) -> Written:
    config, plan = tiny_plan(method)
    content = config.to_dict()
    content.pop("rope_parameters", None)
    published = published_config(content, plan.rope_parameters, plan.max_position_embeddings)
    return Written(json.loads(json.dumps(published | changes)), {"model_max_length": TARGET})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for method in METHODS:
        publish_tiny(folder, method)
    return folder


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("consumer", READERS)
def test_a_consumer_reads_what_was_planned_exactly_where_the_plan_declares_it(method: str, consumer: str) -> None:
    meant = trained_as_planned(tiny_plan(method)[1])
    problems = contract_problems(consumer, written(method), meant)
    assert bool(problems) is (consumer in meant.declined), problems


@settings(max_examples=60)
@given(
    method=st.sampled_from(["linear", "dynamic", "ntk", "yarn", "llama3"]),
    window=st.integers(32, 8192),
    target=st.integers(2, 32 * 8192),
    theta=st.sampled_from([1e4, 5e5, 1e6]),
    head_dim=st.sampled_from([16, 64, 80, 128]),
)
def test_any_plan_is_read_as_it_declares(method: str, window: int, target: int, theta: float, head_dim: int) -> None:
    target = window + target
    config = LlamaConfig(
        hidden_size=2 * head_dim, num_attention_heads=2, head_dim=head_dim, max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )  # fmt: skip
    plan = plan_rope(config, target, method)  # type: ignore[arg-type]
    content = published_config(config.to_dict(), plan.rope_parameters, plan.max_position_embeddings)
    files = Written(json.loads(json.dumps(content)), {"model_max_length": target})
    meant = trained_as_planned(plan)
    for consumer in READERS:
        if consumer not in meant.declined:
            assert contract_problems(consumer, files, meant) == []


@pytest.mark.parametrize("method", METHODS)
def test_the_rule_for_transformers_5_is_what_transformers_5_computes(models: Path, method: str) -> None:
    model = LlamaForCausalLM.from_pretrained(models / method)
    reading = READERS["transformers-5"](Written.load(models / method))
    for length in (16, WINDOW, WINDOW + 1, TARGET):
        forget_lengths(model)
        cos, sin = model.model.rotary_emb(torch.zeros(1, 2, 1), torch.tensor([[1, length - 1]]))
        angles = torch.atan2(sin, cos)[0, 0, : cos.shape[-1] // 2].numpy()
        inv_freq, factor = reading.frequencies(length)
        assert np.allclose(angles, inv_freq, rtol=1e-5)
        assert np.allclose(torch.hypot(sin, cos)[0, 0].numpy(), factor, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "changes", "wrong_for"),
    [
        # transformers 5 lets the older spelling go first, and with it the theta beside it
        ("yarn", {"rope_theta": 500.0}, {"transformers-5", "transformers-4.57", "vllm"}),
        ("yarn", {"rope_scaling": None}, {"transformers-4.57"}),
        ("yarn", {"rope_parameters": None}, set()),  # the older spelling alone
        ("linear", {"max_position_embeddings": TARGET}, {"vllm"}),  # which multiplies it; the tokenizer holds the others back
        ("dynamic", {"max_position_embeddings": TARGET}, {"transformers-5", "transformers-4.57", "vllm"}),
        ("yarn", {"max_position_embeddings": WINDOW}, {"transformers-5", "transformers-4.57", "vllm"}),
        ("longrope", {"original_max_position_embeddings": WINDOW}, {"vllm"}),  # it serves the old window by itself
        ("yarn", {"original_max_position_embeddings": 128}, {"transformers-5", "vllm"}),
        ("llama3", {"head_dim": 16}, {"transformers-5", "transformers-4.57", "vllm"}),
    ],
)
def test_a_config_that_is_read_otherwise_is_found_for_each_reader(method: str, changes: dict, wrong_for: set[str]) -> None:
    files = written(method, **changes)
    meant = trained_as_planned(tiny_plan(method)[1])
    found = {name for name in READERS if contract_problems(name, files, meant)}
    assert found - set(meant.declined) == wrong_for - set(meant.declined)


def test_a_whole_number_as_linear_factor_is_not_servable_by_vllm() -> None:
    files = written("linear", rope_scaling={"rope_type": "linear", "factor": 4})
    meant = trained_as_planned(tiny_plan("linear")[1])
    assert contract_problems("transformers-5", files, meant) == []
    with pytest.raises(ValueError, match="not a float"):
        contract_problems("vllm", files, meant)


def test_a_tokenizer_that_stops_early_is_found() -> None:
    files = Written(written("yarn").config, {"model_max_length": WINDOW})
    meant = trained_as_planned(tiny_plan("yarn")[1])
    assert "64 tokens instead of 256" in contract_problems("transformers-4.57", files, meant)[0]


def test_a_config_that_contradicts_itself_is_found() -> None:
    assert spelling_problems(written("yarn").config) == []
    other = {"rope_type": "default", "rope_theta": 10000.0}
    assert len(spelling_problems(written("yarn", rope_parameters=other).config)) == 3
    assert spelling_problems({"rope_parameters": other}) == []  # one spelling alone cannot


def test_a_missing_theta_means_10000_to_transformers_4() -> None:
    content = {key: value for key, value in written("ntk").config.items() if key != "rope_theta"}
    inv_freq, _ = READERS["transformers-4.57"](Written(content, {})).frequencies(8)
    assert np.isclose(inv_freq[1], 10_000 ** (-2 / 32))


def test_sglang_multiplies_only_what_states_the_old_window() -> None:
    assert {sglang_context_length(written(method).config) for method in METHODS} == {TARGET}
    assert sglang_context_length(written("linear", max_position_embeddings=TARGET).config) == 4 * TARGET


def test_the_way_to_gguf_is_offered_only_where_rope_survives() -> None:
    llama_cpp = {method: gguf_route("llama.cpp", written(method).config) for method in METHODS}
    ollama = {method: gguf_route("ollama", written(method).config) for method in METHODS}
    assert {method for method, route in llama_cpp.items() if route.preserves_rope} == {"linear", "ntk", "yarn", "llama3"}
    assert {method for method, route in ollama.items() if route.preserves_rope} == {"ntk", "yarn", "llama3"}
    assert "--override-kv llama.context_length=int:256" in llama_cpp["linear"].commands[1]
    assert "cannot be told another" in ollama["linear"].reason
    assert "num_ctx 256" in ollama["yarn"].commands[1]
    for route in (*llama_cpp.values(), *ollama.values()):
        assert bool(route.commands) is route.preserves_rope
        assert route.reason
    unknown = {**written("yarn").config, "rope_scaling": {"rope_type": "su"}}
    assert not gguf_route("llama.cpp", unknown).preserves_rope


def test_gguf_keeps_llama3_of_llama_and_mistral_alone() -> None:
    config = written("llama3").config
    for model_type, survives in (("llama", True), ("mistral", True), ("qwen3", False)):
        assert gguf_route("llama.cpp", {**config, "model_type": model_type}).preserves_rope is survives


@pytest.mark.parametrize(("factor", "survives"), [(0.1 * np.log(4.0) + 1, True), (1.0, False)])
def test_gguf_keeps_no_other_yarn_temperature_than_the_implied(factor: float, survives: bool) -> None:
    config = written("yarn").config
    scaling = {**config["rope_scaling"], "attention_factor": factor}
    assert gguf_route("llama.cpp", {**config, "rope_scaling": scaling}).preserves_rope is survives


@pytest.mark.parametrize("method", METHODS)
def test_the_serving_table_offers_a_command_exactly_where_it_is_servable(models: Path, method: str) -> None:
    rows = {row.consumer: row for row in serving_table(models / method)}
    assert set(rows) == set(CONSUMERS)
    vllm = rows["vllm"]
    declined = method in ("dynamic", "longrope_switching")
    assert vllm.servable is not declined
    assert vllm.commands == (() if declined else ("vllm serve path/to/this/folder --max-model-len 256",))
    for row in rows.values():
        assert not (row.servable is False and row.commands), row
        assert "run:" not in row.how_known, "no provenance says that it was published"


def test_what_is_recorded_is_reproduced_after_reloading_and_by_no_other_model(models: Path) -> None:
    for method in METHODS:
        recording = next_tokens.read(models / method)
        model = LlamaForCausalLM.from_pretrained(models / method)
        worst, longest = next_tokens.reproduced(recording, model, 4096)
        assert worst < 1e-5
        assert longest == TARGET - 1
        assert next_tokens.reproduced(recording, model, 100)[1] == WINDOW // 2
    other = LlamaForCausalLM.from_pretrained(models / "yarn")
    assert next_tokens.reproduced(next_tokens.read(models / "ntk"), other, 4096)[0] > 0.01


def test_dynamic_frequencies_do_not_depend_on_what_was_asked_before(models: Path) -> None:
    recording = next_tokens.read(models / "dynamic")
    model = LlamaForCausalLM.from_pretrained(models / "dynamic")
    model(input_ids=torch.zeros(1, 2 * TARGET, dtype=torch.long))
    assert next_tokens.reproduced(recording, model, 4096)[0] < 1e-5


@given(vocab=st.integers(8, 10**6), window=st.integers(1, 10**5), more=st.integers(1, 10**6))
def test_prompts_lie_below_at_and_beyond_the_window(vocab: int, window: int, more: int) -> None:
    target = window + more
    prompts = next_tokens.make_prompts(vocab, window, target)
    for prompt in prompts:
        assert all(0 <= token < vocab for token in prompt.token_ids)
        assert all(0 <= position < len(prompt.token_ids) - 1 for position in prompt.positions)
        assert prompt.positions
    if window >= 8 and more > 8:
        assert len(prompts[0].token_ids) <= window
        assert len(prompts[1].token_ids) < target
        assert prompts[1].positions[0] < window - 1
        assert window in prompts[1].positions
        assert prompts[1].positions[-1] > window


def test_a_wrong_length_a_wrong_value_and_a_missing_candidate_are_named() -> None:
    recording = Recording(4, 16, [Prompt([1, 2, 3], [0, 1], [[5], [6]], [[-1.0], [-2.0]])])
    right = [[{"5": -1.0}, {"6": -2.0}]]
    assert next_tokens.differences(recording, 16, right) == []
    assert "up to 8 tokens instead of 16" in next_tokens.differences(recording, 8, right)[0]
    assert "position 1" in next_tokens.differences(recording, 16, [[{"5": -1.0}, {"6": -2.001}]])[0]
    assert "differ by inf" in next_tokens.differences(recording, 16, [[{"5": -1.0}, {}]])[0]
    assert "differ by inf" in next_tokens.differences(recording, 16, [[{"5": float("nan")}, {"6": -2.0}]])[0]
    assert next_tokens.differences(recording, 16, []) == ["it answered 0 of 1 prompts"]
    assert next_tokens.differences(recording, 16, [[{"5": -1.0}]]) == ["it answered 1 of 2 positions"]


def test_a_folder_of_others_is_compared_with_what_transformers_5_reads(models: Path, tmp_path: Path) -> None:
    foreign = Path(shutil.copytree(models / "yarn", tmp_path / "foreign"))
    (foreign / "rope_plan.json").unlink()
    assert all(check.ok for check in check_contract(foreign))
    config = json.loads((foreign / "config.json").read_text())
    del config["rope_scaling"], config["rope_theta"]  # as transformers 5 saves it
    (foreign / "config.json").write_text(json.dumps(config))
    failed = {check.name for check in check_contract(foreign) if not check.ok}
    assert failed == {"RoPE as transformers-4.57 reads it"}
    assert {check.detail[:6] for check in check_contract(tmp_path)} == {"absent"}
