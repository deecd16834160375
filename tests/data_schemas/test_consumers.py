"""The table of claims: complete, reachable, and spelled one way."""

import json
from typing import get_args

import pytest

from data_schemas.consumers import (
    CLAIMS,
    CONSUMERS,
    SERVABLE,
    ConsumerId,
    RopeUse,
    ServableId,
    claim_about,
    current_id,
    why_not,
)
from data_schemas.model_params import ModelParams

_NUMBERS = {"target": 256, "served": 256, "original": 64}


def use(model_type: str = "llama", rope_type: str = "default", *details: str) -> RopeUse:
    return RopeUse(model_type=model_type, rope_type=rope_type, features=frozenset({rope_type, *details}), numbers=_NUMBERS)


def test_ids_are_those_of_the_table_and_servable_are_those_with_a_rule() -> None:
    assert set(CONSUMERS) == set(get_args(ConsumerId))
    assert get_args(ServableId) == SERVABLE == tuple(name for name, consumer in CONSUMERS.items() if consumer.rule)


@pytest.mark.parametrize("rope_type", ["default", "linear", "dynamic", "yarn", "llama3", "longrope"])
@pytest.mark.parametrize("consumer", get_args(ConsumerId))
def test_every_rope_type_has_a_claim_for_every_consumer(consumer: ConsumerId, rope_type: str) -> None:
    claim = claim_about(consumer, use(rope_type=rope_type))
    assert claim is not None
    assert claim.version
    assert claim.reads is True or claim.reason(use(rope_type=rope_type))
    assert why_not(consumer, use(rope_type="su")).startswith("rope type su was not checked")


def test_no_claim_is_hidden_by_an_earlier_one() -> None:
    """Each claim decides for some config: its own feature alone, or together with its rope type."""
    for claim in CLAIMS:
        rope_type = claim.feature.partition("_")[0]
        model_types = [pattern.replace("*", "_v3") for pattern in claim.only_for] or ["llama", "qwen3", "minicpm"]
        found = [claim_about(claim.consumer, use(model_type, rope_type, claim.feature)) for model_type in model_types]
        assert claim in found, claim


def test_exceptions_by_model_type() -> None:
    assert why_not("vllm", use("llama", "yarn", "yarn_mscale")) == "vLLM reads mscale for DeepSeek models only"
    assert why_not("vllm", use("deepseek_v3", "yarn", "yarn_mscale")) == ""
    assert why_not("vllm", use("phi3", "longrope")) == "vLLM serves 64 tokens of this model unless max_model_len is given"
    assert "never uses the long factors" in why_not("transformers-4.57", use("llama", "longrope", "longrope_two_lists"))
    assert why_not("transformers-4.57", use("phi3", "longrope", "longrope_two_lists")) == ""
    assert "no llama3 factors for qwen3" in why_not("llama.cpp", use("qwen3", "llama3"))


def test_an_old_id_is_accepted_where_users_type_and_nowhere_kept() -> None:
    params = ModelParams(base="demo", target_length=64, serve_with=("transformers>=5", "vllm"))  # type: ignore[arg-type]
    assert params.serve_with == ("transformers-5", "vllm")
    assert "transformers>=5" in json.dumps(ModelParams.model_json_schema()), "a schedule that holds it must still be accepted"
    assert current_id("transformers>=5") == "transformers-5"
    assert current_id("vllm") == "vllm"
