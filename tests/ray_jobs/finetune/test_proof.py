"""The proof that a base can be extended: what passes, what each check finds, and what a person reads."""

import copy
import re
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen2MoeConfig

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.attention import s2_attention_forward
from ray_jobs.finetune.proof import prove, tiny
from ray_jobs.finetune.proof.prove import NotBuilt, Proof, refuse_unproven
from ray_jobs.finetune.proof.shrink import GROUP, ROW, kept_layers, shrunken
from ray_jobs.preflight import refuse_untrainable
from tasks.model.rope_plan import plan_rope
from tests.ray_jobs.finetune.training_example import make_params, write_base
from tests.tiny_models import tiny_config

ALL_LINEAR = TrainingParams(lora_targets=("all-linear",))


def proof_of(config: Any, training: TrainingParams = ALL_LINEAR) -> Proof:
    config = copy.deepcopy(config)
    plan = plan_rope(config, 4 * config.max_position_embeddings)
    plan.apply(config)
    return prove.prove(config, training, plan.target_length, plan.target_length // 4, plan)


@pytest.mark.parametrize("kind", ["llama", "phi3", "mixtral", "gpt-oss", "gemma2"])
def test_bases_of_every_kind_pass(kind: str) -> None:
    state = torch.random.get_rng_state()
    proof = proof_of(tiny_config(kind))
    assert proof.holds, proof.reason
    assert list(proof.passed) == list(prove.SHOWN)
    assert torch.equal(torch.random.get_rng_state(), state), "a run's random numbers do not depend on it"
    assert "proven on 2 small layers" in proof.describe()


@pytest.mark.parametrize(
    ("name", "failed", "reason"),
    [
        ("DogeConfig", "calls", "its layers make attention masks of their own"),
        ("BloomConfig", "calls", "its layers do not call transformers' attention interface"),
        ("FalconConfig", "calls", "its layers do not call transformers' attention interface"),
    ],
)
def test_a_base_that_would_be_trained_wrongly_fails_with_the_real_reason(name: str, failed: str, reason: str) -> None:
    config = getattr(transformers, name)()
    proof = prove.prove(config, ALL_LINEAR, 4096, 1024)
    assert (proof.holds, proof.failed) == (False, failed)
    assert proof.reason.count("\n") == 0
    assert re.search(reason, proof.reason), proof.reason


def faulty(kind: str) -> Any:
    """An attention function with one fault."""

    def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        length, longest = query.shape[2], int(options["position_ids"].max())
        if kind in ("future", "documents"):
            options["position_ids"] = torch.arange(length)[None]
        if kind == "future":
            query, key, value = (t.flip(2) for t in (query, key, value))
        if kind == "alone":  # the fault of before: a window counts only where a document of the row is longer
            window = options.get("sliding_window")
            options["sliding_window"] = window if window is not None and window <= longest else None
        if kind == "own":
            options["scaling"] = 0.5 * options["scaling"]
        if kind == "raises":
            raise RuntimeError("several lines\nand the last one says it.")
        return s2_attention_forward(module, query, key, value, attention_mask, **options)

    return attend


@pytest.mark.parametrize(
    ("kind", "failed", "reason"),
    [
        ("future", "future", "when tokens after it change"),
        ("documents", "documents", "when the others in it change"),
        ("alone", "alone", "document of 7 tokens in a packed row differs by"),
        ("own", "own", "from those of the model's own attention"),
        ("raises", "calls", "its code raises RuntimeError: and the last one says it"),
    ],
)
def test_each_fault_of_the_attention_is_found(kind: str, failed: str, reason: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(tiny, "s2_attention_forward", faulty(kind))
    config = tiny_config("mistral-window-below-group", length=1024)
    config.sliding_window = 850  # between half a group and a group of 1024
    proof = proof_of(config)
    assert proof.failed == failed, proof
    assert reason in proof.reason


def test_a_loss_that_is_not_the_model_s_own_is_found(monkeypatch: Any) -> None:
    monkeypatch.setattr("ray_jobs.finetune.training.objective.output_layer", lambda model: model.get_output_embeddings())
    proof = proof_of(tiny_config("gemma2", final_logit_softcapping=2.0))
    assert proof.failed == "loss"
    assert "its loss is " in proof.reason
    assert "(it has final_logit_softcapping)" in proof.reason


def test_a_weight_that_is_lost_on_the_way_is_found(monkeypatch: Any) -> None:
    import tasks.model.extended as extended

    monkeypatch.setattr(extended, "merge_adapter", lambda model, adapter: model)
    proof = proof_of(tiny_config("llama"))
    assert (proof.failed, "the merged model's logits differ" in proof.reason) == ("saved", True)


def test_the_small_model_keeps_what_decides_the_attention() -> None:
    config = Gemma2Config()
    assert kept_layers(config) == [0, 1]
    config.layer_types = ["full_attention"] * 20 + ["sliding_attention"] * 6
    assert kept_layers(config) == [0, 20]
    small = shrunken(config, row_tokens=32768, group_size=8192)
    assert small.layer_types == ["full_attention", "sliding_attention"]
    assert (small.head_dim, small.attn_logit_softcapping, small.num_attention_heads // small.num_key_value_heads) == (
        256,
        50.0,
        2,
    )
    assert small.sliding_window == GROUP // 2
    for window, expected in ((32768, 32768), (8192, GROUP), (20000, 29), (31000, 45), (8191, GROUP - 1), (2, 2)):
        config.sliding_window = window
        assert shrunken(config, row_tokens=32768, group_size=8192).sliding_window == expected, window
    assert ROW > 2 * GROUP
    experts = Qwen2MoeConfig(mlp_only_layers=[0, 3], attention_dropout=0.3, num_hidden_layers=6)
    small = shrunken(experts, row_tokens=4096, group_size=1024)
    assert (small.num_experts, small.attention_dropout, small.output_router_logits) == (4, 0.0, False)
    assert (experts.num_experts, experts.attention_dropout) == (60, 0.3), "the base's own is not touched"


def test_hybrids_keep_a_layer_of_each_kind() -> None:
    jamba = transformers.JambaConfig()
    assert [jamba.layers_block_type[layer] for layer in kept_layers(jamba)] == ["mamba", "attention"]
    assert shrunken(jamba, 4096, 1024).layers_block_type == ["mamba", "attention"]
    bamba = shrunken(transformers.BambaConfig(attn_layer_indices=[9, 18]), 4096, 1024)
    assert (bamba.layers_block_type, bamba.mamba_n_heads) == (["linear_attention", "full_attention"], 4)


def test_a_configuration_that_gives_no_model_says_why() -> None:
    with pytest.raises(NotBuilt, match="its code raises"):
        prove.prove(LlamaConfig(hidden_act="none of these"), ALL_LINEAR, 4096, 1024)


def test_a_run_is_refused_before_any_work_and_proven_once(tmp_path: Any, tokenizer: Any, monkeypatch: Any) -> None:
    params = make_params(write_base(tmp_path / "base", tokenizer, tied=True))
    first = refuse_unproven(params)
    assert refuse_unproven(params) is first
    sizes = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
    AutoModelForCausalLM.from_config(transformers.DogeConfig(**sizes)).save_pretrained(tmp_path / "doge")
    tokenizer.save_pretrained(tmp_path / "doge")
    with pytest.raises(
        UserError, match=r"^A base of type 'doge' cannot be extended: its layers make attention masks of their own"
    ):
        refuse_untrainable(make_params(tmp_path / "doge"))
